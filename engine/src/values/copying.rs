//! Copies values with all that they share.

use std::collections::HashMap;

use rhai::{Array, Dynamic, FnPtr, Map};

/// Copies values so that the copies share nothing with the originals, but among each other what those share. Runs on the
/// engine's stack.
#[derive(Default)]
pub struct Copying {
    /// The copies of shared values, by the addresses of the originals.
    copies: HashMap<*const Dynamic, Dynamic>,
}

impl Copying {
    pub fn copy(&mut self, value: &Dynamic) -> Dynamic {
        let mut copy = value.clone();
        self.part(&mut copy);
        copy
    }

    /// Part a copy from the original.
    fn part(&mut self, copy: &mut Dynamic) {
        if copy.is_shared() {
            // Read and released: the value may contain itself.
            let Some((place, mut inner)) = copy
                .read_lock::<Dynamic>()
                .map(|inner| (&raw const *inner, inner.clone()))
            else {
                return;
            };
            if let Some(known) = self.copies.get(&place) {
                *copy = known.clone();
                return;
            }
            let shared = Dynamic::UNIT.into_shared();
            self.copies.insert(place, shared.clone());
            *copy = shared;
            self.part(&mut inner);
            if let Some(mut place) = copy.write_lock::<Dynamic>() {
                *place = inner;
            }
        } else if let Some(mut items) = copy.write_lock::<Array>() {
            items.iter_mut().for_each(|item| self.part(item));
        } else if let Some(mut entries) = copy.write_lock::<Map>() {
            entries.values_mut().for_each(|value| self.part(value));
        } else if let Some(mut pointer) = copy.write_lock::<FnPtr>() {
            pointer.iter_curry_mut().for_each(|value| self.part(value));
        }
    }
}
