//! What an optimizer remembers of each parameter.

use super::OptimizerError;
use crate::array::{Array, DType, Shape};
use crate::kernels;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// One array for each parameter that has been stepped, by the parameter's name.
pub(super) struct Slots {
    /// In front of the parameter's name in a saved state, such as "adam.first".
    prefix: &'static str,
    arrays: BTreeMap<String, Array>,
}

impl Slots {
    pub(super) fn new(prefix: &'static str) -> Slots {
        Slots { prefix, arrays: BTreeMap::new() }
    }

    /// The array of the parameter `name`; zeros on `like`'s device the first time. Panics if it was loaded with another shape or
    /// dtype.
    pub(super) fn of(&mut self, name: &str, shape: &Shape, like: &Array) -> &mut Array {
        let dtype = like.dtype();
        match self.arrays.entry(name.to_string()) {
            Entry::Vacant(entry) => entry.insert(kernels::of(like.device()).fill(shape, dtype, 0.0)),
            Entry::Occupied(entry) => {
                let array = entry.into_mut();
                assert_fits(self.prefix, name, array, shape, dtype);
                if array.device() != like.device() {
                    // as it was loaded
                    *array = array.to(like.device());
                }
                array
            }
        }
    }

    fn save(&self, state: &mut BTreeMap<String, Array>) {
        state.extend(self.arrays.iter().map(|(name, array)| (format!("{}.{name}", self.prefix), array.clone())));
    }
}

fn assert_fits(prefix: &str, name: &str, array: &Array, shape: &Shape, dtype: DType) {
    assert!(
        array.shape() == shape && array.dtype() == dtype,
        "{prefix}.{name}: the loaded state is {} {}, the parameter needs {shape} {dtype}",
        array.shape(),
        array.dtype()
    );
}

/// Everything in `all`, by prefixed name.
pub(super) fn save(all: &[&Slots]) -> BTreeMap<String, Array> {
    let mut state = BTreeMap::new();
    for slots in all {
        slots.save(&mut state);
    }
    state
}

/// Replaces all slots by those of `state`. An entry that belongs to none is an error, and then nothing has been changed.
pub(super) fn load(all: &mut [&mut Slots], state: &BTreeMap<String, Array>) -> Result<(), OptimizerError> {
    let mut loaded = vec![BTreeMap::new(); all.len()];
    for (key, array) in state {
        let place = all.iter().enumerate().find_map(|(i, slots)| {
            let name = key.strip_prefix(slots.prefix)?.strip_prefix('.')?;
            Some((i, name))
        });
        let Some((i, name)) = place else {
            let known: Vec<&str> = all.iter().map(|slots| slots.prefix).collect();
            return Err(OptimizerError::State(format!("{key} is none of {known:?}")));
        };
        loaded[i].insert(name.to_string(), array.clone());
    }
    for (slots, arrays) in all.iter_mut().zip(loaded) {
        slots.arrays = arrays;
    }
    Ok(())
}

/// An error unless `state` has "`a`.NAME" and "`b`.NAME" for the same names.
pub(super) fn check_pairs(state: &BTreeMap<String, Array>, a: &str, b: &str) -> Result<(), OptimizerError> {
    for (one, other) in [(a, b), (b, a)] {
        let names = state.keys().filter_map(|key| key.strip_prefix(one)?.strip_prefix('.'));
        let mut wanted = names.map(|name| format!("{other}.{name}"));
        if let Some(missing) = wanted.find(|key| !state.contains_key(key)) {
            return Err(OptimizerError::State(format!("{missing} is missing")));
        }
    }
    Ok(())
}
