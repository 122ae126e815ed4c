//! How much each level of groups of groups adds to the variance of what is in them.

// ANCHOR: components
/// The components of the variance of images that were drawn in groups of groups: of `counts[0]` groups each has `counts[1]`, and so
/// on down to single images. Means over the pixels, the outermost level first. (16.3)
pub fn components(images: &[Vec<f64>], counts: &[usize]) -> Vec<f64> {
    let (mut means, mut found, mut below) = (images.to_vec(), Vec::new(), 0.0);
    for &n in counts.iter().rev() {
        let mut spread = 0.0;
        let mean_of = |group: &[Vec<f64>]| -> Vec<f64> {
            (0..group[0].len()).map(|k| group.iter().map(|x| x[k]).sum::<f64>() / n as f64).collect()
        };
        let groups: Vec<Vec<f64>> = means.chunks(n).map(mean_of).collect();
        for (group, mean) in means.chunks(n).zip(&groups) {
            let squares = group.iter().flat_map(|x| x.iter().zip(mean)).map(|(x, m)| (x - m).powi(2));
            spread += squares.sum::<f64>() / ((n - 1) * mean.len() * groups.len()) as f64;
        }
        found.push(spread - below);
        // What the spread of these means leaves in the mean of n of them.
        (means, below) = (groups, spread / n as f64);
    }
    found.reverse();
    found
}
// ANCHOR_END: components
