//! Normalisations.

use super::{Table, any};

pub fn add_to(table: &mut Table) {
    for (shape, groups) in [
        (&[2, 6, 3, 5][..], 1),
        (&[2, 6, 3, 5], 2),
        (&[2, 6, 3, 5], 3),
        (&[2, 6, 3, 5], 6),
        (&[3, 4, 7], 2),
        (&[3, 8], 2),
        (&[1, 2, 1, 3], 1),
        (&[0, 4, 3, 3], 2),
        (&[2, 2, 2, 1, 3], 2),
        (&[5, 24, 13, 11], 8),
        (&[3, 32, 16, 17], 32),
    ] {
        let inputs =
            [super::Input { shape: shape.into(), domain: super::Domain::Any }, any([shape[1]]), any([shape[1]])];
        let note = format!("{groups} groups");
        table.add("group_norm", note.clone(), &inputs, move |x| x[0].group_norm(&x[1], &x[2], groups, 1e-5));
        table.add("group_norm_silu", note, &inputs, move |x| x[0].group_norm_silu(&x[1], &x[2], groups, 1e-5));
    }
    table.add("group_norm", "large eps", &[any([2, 4, 3]), any([4]), any([4])], |x| {
        x[0].group_norm(&x[1], &x[2], 2, 0.5)
    });
    // Means far larger than deviations: the variance must not be a difference of squares.
    table.add("group_norm", "of x + 16", &[any([2, 4, 9]), any([4]), any([4])], |x| {
        (&x[0] + 16.0).group_norm(&x[1], &x[2], 2, 1e-5)
    });
    for shape in [[2, 3, 5], [1, 1, 4], [0, 2, 3], [7, 29, 83]] {
        let inputs = [any(shape), any([shape[2]]), any([shape[2]])];
        table.plain("layer_norm", &inputs, |x| x[0].layer_norm(&x[1], &x[2], 1e-5));
        table.plain("rms_norm", &inputs[..2], |x| x[0].rms_norm(&x[1], 1e-6));
    }
    table.plain("layer_norm", &[any([7]), any([7]), any([7])], |x| x[0].layer_norm(&x[1], &x[2], 1e-5));
    table.plain("rms_norm", &[any([7]), any([7])], |x| x[0].rms_norm(&x[1], 1e-6));
}
