//! Data sets: reading them, the order in which training sees them, and the captions their images get.

mod batches;
mod captions;
pub mod corpus;
mod dataset;
pub mod idx;

pub use batches::Batches;
pub use captions::{Captions, Split};
pub use corpus::{Corpus, CorpusConfig, CorpusError};
pub use dataset::{DataError, Dataset, DatasetName, Images};
pub use idx::{Idx, IdxError};
