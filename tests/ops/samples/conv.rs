//! Convolutions.

use super::{Table, any};

pub fn add_to(table: &mut Table) {
    for kernel in [1, 2, 3, 4, 5] {
        for stride in [1, 2, 3] {
            for padding in [0, 1, 2] {
                conv(table, [2, 2, 5, 6], [3, 2, kernel, kernel], stride, padding);
            }
        }
    }
    // Kernels that are not square, that just fit, and that are larger than the image without its padding.
    conv(table, [2, 3, 5, 7], [4, 3, 1, 3], 1, 0);
    conv(table, [2, 3, 5, 7], [4, 3, 3, 2], 2, 1);
    conv(table, [1, 2, 4, 3], [3, 2, 4, 3], 1, 0);
    conv(table, [1, 2, 2, 3], [2, 2, 5, 4], 1, 2);
    conv(table, [1, 1, 1, 1], [1, 1, 1, 1], 1, 0);
    // Padding beyond the kernel, stride beyond the image.
    conv(table, [1, 2, 3, 2], [2, 2, 1, 1], 1, 2);
    conv(table, [2, 2, 3, 4], [2, 2, 3, 3], 7, 1);
    conv(table, [0, 2, 5, 5], [3, 2, 3, 3], 1, 1);
    // Large enough for several threads and for blocks that do not come out even.
    conv(table, [3, 17, 15, 13], [19, 17, 3, 3], 1, 1);
    conv(table, [3, 17, 15, 13], [19, 17, 3, 3], 2, 1);
    conv(table, [5, 33, 9, 11], [35, 33, 1, 1], 1, 0);
    conv(table, [2, 3, 32, 32], [8, 3, 3, 3], 1, 1);
    conv(table, [1, 9, 31, 37], [7, 9, 5, 5], 1, 2);
}

/// With and without bias.
fn conv(table: &mut Table, x: [usize; 4], weight: [usize; 4], stride: usize, padding: usize) {
    let note = format!("stride {stride} padding {padding}");
    let inputs = [any(x), any(weight), any([weight[0]])];
    table.add("conv2d", note.clone(), &inputs[..2], move |x| x[0].conv2d(&x[1], None, stride, padding));
    table.add("conv2d", note, &inputs, move |x| x[0].conv2d(&x[1], Some(&x[2]), stride, padding));
}
