//! What a text encoder made of captions, kept in memory.

use crate::array::Device;
use crate::text::{Embedding, TextEncoder, TextError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A text encoder that reads each caption once, for looks at a model that leave nothing on the disk.
pub(super) struct Remembered {
    encoder: Arc<dyn TextEncoder>,
    known: Mutex<HashMap<String, Embedding>>,
}

impl Remembered {
    /// Nothing has been read yet.
    pub(super) fn new(encoder: Arc<dyn TextEncoder>) -> Remembered {
        Remembered { encoder, known: Mutex::default() }
    }
}

impl TextEncoder for Remembered {
    fn dim(&self) -> usize {
        self.encoder.dim()
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        Ok(self.encode_all(&[caption])?.remove(0))
    }

    fn encode_all(&self, captions: &[&str]) -> Result<Vec<Embedding>, TextError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<&str> = captions.iter().copied().filter(|&caption| !known.contains_key(caption)).collect();
        new.sort_unstable();
        new.dedup();
        // An encoder that is asked for nothing may not know what to do.
        if !new.is_empty() {
            let read = self.encoder.encode_all(&new)?;
            known.extend(new.into_iter().map(String::from).zip(read));
        }
        Ok(captions.iter().map(|&caption| known[caption].clone()).collect())
    }

    fn on(self: Arc<Self>, device: Device) -> Arc<dyn TextEncoder> {
        let encoder = self.encoder.clone().on(device);
        Arc::new(Remembered::new(encoder))
    }

    fn is_costly(&self) -> bool {
        self.encoder.is_costly()
    }

    fn digest(&self) -> String {
        self.encoder.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::HashedWords;

    /// Writes down what it is asked to read.
    struct Noting(HashedWords, Mutex<Vec<String>>);

    impl TextEncoder for Noting {
        fn dim(&self) -> usize {
            self.0.dim()
        }

        fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
            self.1.lock().unwrap().push(caption.into());
            self.0.encode(caption)
        }

        fn on(self: Arc<Self>, _device: Device) -> Arc<dyn TextEncoder> {
            self
        }

        fn digest(&self) -> String {
            self.0.digest()
        }
    }

    #[test]
    fn every_caption_is_read_once_and_is_what_the_encoder_makes_of_it() {
        let noting = Arc::new(Noting(HashedWords::new(6, 1, 32).unwrap(), Mutex::default()));
        let remembered = Remembered::new(noting.clone());
        for captions in [&["two", "a seven", "two"][..], &["a seven"], &["nine", "two"], &[]] {
            let exact: Vec<Embedding> = captions.iter().map(|caption| noting.0.encode(caption).unwrap()).collect();
            assert_eq!(remembered.encode_all(captions).unwrap(), exact);
        }
        assert_eq!(remembered.encode("nine").unwrap(), noting.0.encode("nine").unwrap());
        assert!(remembered.encode("?!").is_err());
        assert_eq!(*noting.1.lock().unwrap(), ["a seven", "two", "nine", "?!"]);
    }
}
