//! Keys and values of what stands before every text of a question, kept for as long as the process lives.

use std::sync::{Arc, Mutex, PoisonError};

use super::decoder::{Decoder, Past};
use crate::{Failure, Stop};

/// Beyond this, those that were not asked for the longest make room.
const BYTES_MAX: usize = 256 << 20;

#[derive(Default)]
pub(super) struct Prefixes {
    /// Last asked for last.
    held: Mutex<Vec<(Vec<u32>, Arc<Past>)>>,
}

impl Prefixes {
    pub(super) fn past(&self, decoder: &Decoder, ids: &[u32], stop: &Stop) -> Result<Arc<Past>, Failure> {
        if ids.is_empty() {
            return Ok(decoder.nothing());
        }
        if let Some(past) = self.take(ids) {
            return Ok(past);
        }
        // Not under the lock: others go on meanwhile, and at worst the same is computed twice.
        let past = Arc::new(decoder.extend(ids, &decoder.nothing(), stop)?);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(of, _)| of != ids);
        held.push((ids.to_vec(), Arc::clone(&past)));
        let bytes = |held: &[(Vec<u32>, Arc<Past>)]| -> usize {
            held.iter().map(|(ids, _)| decoder.past_bytes(ids.len())).sum()
        };
        while held.len() > 1 && bytes(&held) > BYTES_MAX {
            held.remove(0);
        }
        Ok(past)
    }

    fn take(&self, ids: &[u32]) -> Option<Arc<Past>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.iter().position(|(of, _)| of == ids)?;
        let found = held.remove(at);
        let past = Arc::clone(&found.1);
        held.push(found);
        Some(past)
    }
}
