//! Rows of a table by number.

use super::Tensor;
use super::graph::op;

impl Tensor {
    // ANCHOR: embedding
    /// Rows of this table [n, d]: result [rows.len(), d]. dx = every row of g added to the row it came from.
    /// Panics if a row does not exist.
    #[track_caller]
    pub fn embedding(&self, rows: &[u32]) -> Tensor {
        let [n, _] = self.shape().dims("embedding table");
        if let Some(row) = rows.iter().find(|&&row| row as usize >= n) {
            panic!("embedding: row {row} is not in a table of shape {}", self.shape());
        }
        let (k, rows) = (self.kernels(), rows.to_vec());
        op("embedding", k.gather_rows(&self.value, &rows)).grad(self, move |g| k.scatter_add_rows(g, &rows, n)).done()
    }
    // ANCHOR_END: embedding
}
