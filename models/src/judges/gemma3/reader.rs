//! Texts in, hidden states out: a checkpoint's tokenizer, graph and session.
//!
//! What heads are fitted on and what they judge by comes from here, so that the two can't differ.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::decoder::{Decoder, Pool, Pooling, Reading, Row};
use super::packing::packs;
use crate::checkpoint::config::TextConfig;
use crate::checkpoint::weights::BlocksAs;
use crate::graph::text::{Reads, Tap};
use crate::installed::ModelError;
use crate::prompt::PromptError;
use crate::prompt::tokenizer::TextTokenizer;
use crate::runtime::{Runtime, RuntimeError};
use crate::{Failure, Stop};

/// Reads texts; see [`Reader::features`].
pub struct Reader {
    pub(super) tokenizer: TextTokenizer,
    pub(super) decoder: Decoder,
    pub(super) text: TextConfig,
    pub(super) taps: Vec<Tap>,
    pub(super) pools: Pools,
}

/// What is read of a text's tokens: the whole, in some ways, and the means of stretches of so many tokens.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    pub whole: Vec<Pooling>,
    pub stretches: Vec<usize>,
}

impl Pools {
    fn of(&self, content: &Range<usize>) -> Vec<Pool> {
        let whole = self.whole.iter().map(|pooling| Pool { pooling: *pooling, tokens: content.clone() });
        let stretches = self.stretches.iter().flat_map(|tokens| stretches(content, *tokens));
        whole.chain(stretches.map(|tokens| Pool { pooling: Pooling::Mean, tokens })).collect()
    }
}

/// Every run of `tokens`, half of each in the next, the last one at the end; none where there are no more.
fn stretches(content: &Range<usize>, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let last = content.end.saturating_sub(tokens);
    let starts = (content.start..last).step_by((tokens / 2).max(1));
    let some = content.len() > tokens;
    starts.chain([last]).filter(move |_| some).map(move |start| start..start + tokens)
}

impl Reader {
    /// A reader for hidden states alone; the graph ends with the last layer of `taps`.
    pub fn open(
        runtime: &Arc<Runtime>,
        folder: &Path,
        taps: Vec<Tap>,
        pools: Pools,
    ) -> Result<Self, ModelError> {
        Self::over(runtime, Checkpoint::read(folder)?, Reads { taps, answers: vec![] }, pools)
    }

    /// For tests, which compare: [`Self::open`] over a GGUF with its blocks multiplied in one way or the other.
    pub fn open_with_blocks(
        runtime: &Arc<Runtime>,
        folder: &Path,
        taps: Vec<Tap>,
        pools: Pools,
        blocks: BlocksAs,
    ) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::read(folder)?.with_blocks(blocks);
        Self::over(runtime, checkpoint, Reads { taps, answers: vec![] }, pools)
    }

    pub(super) fn over(
        runtime: &Arc<Runtime>,
        checkpoint: Checkpoint,
        reads: Reads,
        pools: Pools,
    ) -> Result<Self, ModelError> {
        let graph = checkpoint.graph(&reads)?;
        let session = runtime.session_from_graph(&graph, &checkpoint.weights)?;
        let text = checkpoint.text;
        let taps = reads.taps.clone();
        let decoder = Decoder::new(session, text.clone(), reads)
            .map_err(|source| RuntimeError::Session { what: "the decoder".to_owned(), source })?;
        Ok(Self { tokenizer: checkpoint.tokenizer, decoder, text, taps, pools })
    }

    /// For tests, which compare: so many tokens of a text a pass.
    pub fn with_piece(mut self, tokens: usize) -> Self {
        self.decoder = self.decoder.with_piece(tokens);
        self
    }

    /// A text as it is read when nothing is asked about it, `<bos>` first.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, Failure> {
        let content = self.tokenizer.content(text).map_err(failed)?;
        Ok([self.tokenizer.start(), &content].concat())
    }

    /// For each text its hidden states, tap after tap, in each pool after pool (the whole in each way, then the
    /// stretches), in each [hidden], pooled over all its tokens but `<bos>` (which stands in for an empty text). A text's numbers depend on the others'
    /// lengths by rounding alone.
    pub fn features(&self, texts: &[&str], stop: &Stop) -> Vec<Result<Vec<f32>, Failure>> {
        let ids: Vec<Result<Vec<u32>, Failure>> = texts.iter().map(|text| self.ids(text)).collect();
        let readings = self.read_all(&ids, stop);
        readings.into_iter().map(|reading| reading.map(|reading| reading.pooled)).collect()
    }

    pub(super) fn read_all(
        &self,
        ids: &[Result<Vec<u32>, Failure>],
        stop: &Stop,
    ) -> Vec<Result<Reading, Failure>> {
        let started = self.tokenizer.start().len();
        let rows: Vec<(usize, Row<'_>)> = ids
            .iter()
            .enumerate()
            .filter_map(|(at, ids)| {
                let ids = ids.as_ref().ok()?;
                let content = started.min(ids.len().saturating_sub(1))..ids.len();
                Some((at, Row { ids, pools: self.pools.of(&content) }))
            })
            .collect();
        let missing = || Err(Failure::Runtime("the text was not read".to_owned()));
        let mut readings: Vec<_> = ids
            .iter()
            .map(|ids| ids.as_ref().map_or_else(|error| Err(error.clone()), |_| missing()))
            .collect();
        let lengths: Vec<usize> = rows.iter().map(|(_, row)| row.ids.len()).collect();
        for pack in packs(&lengths, 0) {
            let (places, pack): (Vec<usize>, Vec<Row<'_>>) =
                pack.iter().filter_map(|row| rows.get(*row)).map(|(at, row)| (*at, row.clone())).unzip();
            let found = match self.decoder.read(&pack, &self.decoder.nothing(), stop) {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(failure) => vec![Err(failure); places.len()],
            };
            for (at, found) in places.into_iter().zip(found) {
                if let Some(reading) = readings.get_mut(at) {
                    *reading = found;
                }
            }
        }
        readings
    }
}

pub(super) fn failed(error: PromptError) -> Failure {
    Failure::Runtime(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_cover_every_token_and_are_none_of_what_is_no_longer_than_one() {
        let of = |content: Range<usize>| stretches(&content, 4).collect::<Vec<_>>();
        assert!(of(1..5).is_empty());
        assert_eq!(of(1..6), [1..5, 2..6]);
        assert_eq!(of(0..10), [0..4, 2..6, 4..8, 6..10]);
        assert_eq!(of(0..11), [0..4, 2..6, 4..8, 6..10, 7..11]);
        for end in 5..60 {
            let found = of(1..end);
            assert!((1..end).all(|at| end < 6 || found.iter().any(|stretch| stretch.contains(&at))), "{end}");
        }
    }
}
