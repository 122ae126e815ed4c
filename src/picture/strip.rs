//! A filmstrip of sampling: what the model was given, and what it thought the image was.

use super::{Layout, Picture, grid};

/// A filmstrip along sampling, one column a step: x_t above, the model's guess x_hat_0 below. `layout.columns` is not
/// used. Panics if the rows have no pictures or not equally many, or if sizes differ.
#[track_caller]
pub fn strip(x_t: &[Picture], x_hat_0: &[Picture], layout: Layout) -> Picture {
    assert_eq!(x_t.len(), x_hat_0.len(), "strip: {} pictures of x_t, {} of x_hat_0", x_t.len(), x_hat_0.len());
    assert!(!x_t.is_empty(), "strip: no pictures");
    grid(&[x_t, x_hat_0].concat(), Layout { columns: x_t.len(), ..layout })
}

/// Which of `steps` steps a strip of `shown` frames shows: evenly spread, the first and the last among them; all of
/// them when there are not more than `shown`.
pub fn frames(steps: usize, shown: usize) -> Vec<usize> {
    match shown.min(steps) {
        0 => Vec::new(),
        1 => vec![steps - 1],
        shown => (0..shown).map(|i| (i * (steps - 1) + (shown - 1) / 2) / (shown - 1)).collect(),
    }
}
