// A row of numbers shared by LANES neighbouring threads, a power of two up to 256: each takes every LANES-th number, and the
// results of all are combined as a tree, in the same order every time. A workgroup has 256 / LANES rows.

const GROUP: u32 = 256u;
const ROWS_A_GROUP: u32 = GROUP / LANES;

var<workgroup> of_lanes: array<f32, GROUP>;

// ANCHOR: sum_of_lanes
// Every thread of the workgroup must come here.
fn sum_of_lanes(value: f32, thread: u32) -> f32 {
    of_lanes[thread] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if thread % LANES < half {
            of_lanes[thread] += of_lanes[thread + half];
        }
        workgroupBarrier();
    }
    let sum = of_lanes[thread / LANES * LANES];
    workgroupBarrier();
    return sum;
}
// ANCHOR_END: sum_of_lanes

fn largest_of_lanes(value: f32, thread: u32) -> f32 {
    of_lanes[thread] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if thread % LANES < half {
            of_lanes[thread] = larger(of_lanes[thread], of_lanes[thread + half]);
        }
        workgroupBarrier();
    }
    let largest = of_lanes[thread / LANES * LANES];
    workgroupBarrier();
    return largest;
}
