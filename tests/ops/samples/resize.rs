//! Changing the size of images.

use super::{Table, any};

pub fn add_to(table: &mut Table) {
    for factor in [1, 2, 3] {
        let note = format!("by {factor}");
        table.add("upsample_nearest", note, &[any([2, 3, 3, 4])], move |x| x[0].upsample_nearest(factor));
        let note = format!("by {factor}");
        table.add("avg_pool2d", note, &[any([2, 3, 3 * factor, 2 * factor])], move |x| x[0].avg_pool2d(factor));
    }
    table.add("upsample_nearest", "no images", &[any([0, 3, 2, 2])], |x| x[0].upsample_nearest(2));
    table.add("avg_pool2d", "no images", &[any([0, 3, 2, 2])], |x| x[0].avg_pool2d(2));
    table.add("upsample_nearest", "many", &[any([3, 13, 17, 19])], |x| x[0].upsample_nearest(2));
    table.add("avg_pool2d", "many", &[any([3, 13, 34, 38])], |x| x[0].avg_pool2d(2));
    // The same, a whole multiple, up and down by fractions, one up and one down, from and to a single pixel.
    for [h, w] in [[5, 7], [10, 14], [10, 21], [8, 9], [3, 4], [9, 2], [1, 1], [2, 14]] {
        let note = format!("to {h} x {w}");
        table.add("resize_bilinear", note.clone(), &[any([2, 2, 5, 7])], move |x| x[0].resize_bilinear(h, w));
        table.add("resize_nearest", note, &[any([2, 2, 5, 7])], move |x| x[0].resize_nearest(h, w));
    }
    table.add("resize_bilinear", "from one pixel", &[any([1, 2, 1, 1])], |x| x[0].resize_bilinear(3, 2));
    table.add("resize_nearest", "from one pixel", &[any([1, 2, 1, 1])], |x| x[0].resize_nearest(3, 2));
    table.add("resize_bilinear", "many", &[any([3, 7, 16, 18])], |x| x[0].resize_bilinear(31, 29));
}
