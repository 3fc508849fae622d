//! Asking in words: which tokens go through the model in which order, and what of them is shared.

use std::collections::BTreeMap;

use super::decoder::{Past, Pool, Row};
use super::packing::packs;
use super::{AskedText, Gemma3, Logits, failed, fenced};
use crate::prompt::PromptError;
use crate::prompt::text::{Around, TextPrompt};
use crate::prompt::tokenizer::TextTokenizer;
use crate::{Failure, Question, Stop};

/// A question's prompts in tokens, without the text.
pub(super) struct Prompted {
    prompt: Around,
    for_long_texts: Option<Around>,
}

impl Prompted {
    pub(super) fn of(tokenizer: &TextTokenizer, prompt: &TextPrompt) -> Result<Self, PromptError> {
        let around = |prompt: &String| Around::of(tokenizer, prompt);
        Ok(Self {
            prompt: around(&prompt.prompt)?,
            for_long_texts: prompt.prompt_for_long_texts.as_ref().map(around).transpose()?,
        })
    }

    /// Tokens of the longer prompt.
    pub(super) fn longest(&self) -> usize {
        self.orders().map(|around| around.before.len() + around.after.len()).max().unwrap_or_default()
    }

    /// The largest token.
    pub(super) fn largest(&self) -> u32 {
        self.orders().flat_map(|around| around.before.iter().chain(&around.after)).copied().max().unwrap_or(0)
    }

    fn orders(&self) -> impl Iterator<Item = &Around> {
        [Some(&self.prompt), self.for_long_texts.as_ref()].into_iter().flatten()
    }

    /// What stands around a text of so many tokens. With the text first, what follows it costs every text; with
    /// the policy first, the text itself costs every policy: from two policies on the longer part decides.
    fn around(&self, text: usize) -> &Around {
        match &self.for_long_texts {
            Some(around) if text > 2 * around.after.len() => around,
            _ => &self.prompt,
        }
    }
}

/// One text under one question.
struct Job<'a> {
    /// Of the batch.
    text: usize,
    /// Of the text's.
    question: usize,
    /// What follows the text.
    after: &'a [u32],
}

impl Gemma3 {
    /// Logits of the questions that are asked in words; `None` for all others.
    pub(super) fn by_prompt<'a>(
        &self,
        batch: &[AskedText<'_>],
        prompted: &dyn Fn(&Question) -> Option<&'a Prompted>,
        stop: &Stop,
    ) -> Vec<Vec<Option<Logits>>> {
        let mut logits: Vec<Vec<Option<Logits>>> =
            batch.iter().map(|(_, questions)| vec![None; questions.len()]).collect();
        let mut put = |job: &Job<'_>, found: Logits| {
            if let Some(place) = logits.get_mut(job.text).and_then(|places| places.get_mut(job.question)) {
                *place = Some(found);
            }
        };
        let asked = |questions: &[Question]| questions.iter().any(|question| prompted(question).is_some());
        let texts: Vec<Option<Result<Vec<u32>, Failure>>> = batch
            .iter()
            .map(|(text, questions)| {
                let content = || self.reader.tokenizer.content(&fenced(text)).map_err(failed);
                asked(questions).then(content)
            })
            .collect();

        // By what stands before the text. Where that is the same for several questions about one text, so is
        // the text, and it is read once.
        let mut behind: BTreeMap<&[u32], Vec<Job<'_>>> = BTreeMap::new();
        let mut before: Vec<(&[u32], Vec<Job<'_>>)> = Vec::new();
        for (text, (ids, (_, questions))) in texts.iter().zip(batch).enumerate() {
            let mut starts: BTreeMap<&[u32], Vec<Job<'_>>> = BTreeMap::new();
            for (question, prompt) in
                questions.iter().enumerate().filter_map(|(at, q)| Some((at, prompted(q)?)))
            {
                let job = |after| Job { text, question, after };
                match ids {
                    Some(Ok(ids)) => {
                        let around = prompt.around(ids.len());
                        starts.entry(&around.before).or_default().push(job(&around.after));
                    }
                    Some(Err(failure)) => put(&job(&[]), Err(failure.clone())),
                    None => {}
                }
            }
            for (start, jobs) in starts {
                // Alone it shares nothing but its start, and goes with other texts; likewise an empty one.
                if jobs.len() == 1 || matches!(ids, Some(Ok(ids)) if ids.is_empty()) {
                    behind.entry(start).or_default().extend(jobs);
                } else {
                    before.push((start, jobs));
                }
            }
        }
        let ids_of = |job: &Job<'_>| texts.get(job.text).and_then(|ids| ids.as_ref()?.as_ref().ok());
        for (start, jobs) in &behind {
            let _span = tracing::info_span!("texts", texts = jobs.len()).entered();
            let rows: Vec<Vec<u32>> = jobs
                .iter()
                .map(|job| [ids_of(job).map_or(&[][..], Vec::as_slice), job.after].concat())
                .collect();
            let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            let past = self.prefixes.past(&self.reader.decoder, start, stop);
            let found = self.ends(&rows, past.as_deref(), stop);
            jobs.iter().zip(found).for_each(|(job, found)| put(job, found));
        }
        for (start, jobs) in &before {
            let _span = tracing::info_span!("policies", policies = jobs.len()).entered();
            let decoder = &self.reader.decoder;
            let text = jobs.first().and_then(ids_of).map_or(&[][..], Vec::as_slice);
            let past = self.prefixes.past(decoder, start, stop);
            let past = past.and_then(|past| decoder.extend(text, &past, stop));
            let rows: Vec<&[u32]> = jobs.iter().map(|job| job.after).collect();
            let found = self.ends(&rows, past.as_ref(), stop);
            jobs.iter().zip(found).for_each(|(job, found)| put(job, found));
        }
        logits
    }

    /// The logits at the ends of rows that continue one past.
    fn ends(&self, rows: &[&[u32]], past: Result<&Past, &Failure>, stop: &Stop) -> Vec<Logits> {
        let past = match past {
            Ok(past) => past,
            Err(failure) => return vec![Err(failure.clone()); rows.len()],
        };
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let unread = || Err(Failure::Runtime("no logits came back".to_owned()));
        let mut found: Vec<Logits> = rows.iter().map(|_| unread()).collect();
        for pack in packs(&lengths, past.length()) {
            let of = |row: &usize| rows.get(*row).map(|ids| Row { ids, pools: Pool::any() });
            let batch: Vec<Row<'_>> = pack.iter().filter_map(of).collect();
            let readings = match self.reader.decoder.read(&batch, past, stop) {
                Ok(readings) => readings.into_iter().map(|reading| Ok(reading.logits)).collect(),
                Err(failure) => vec![Err(failure); pack.len()],
            };
            for (row, reading) in pack.into_iter().zip(readings) {
                let logits = reading.and_then(|logits| match logits.as_slice() {
                    &[yes, no] => Ok([f64::from(yes), f64::from(no)]),
                    _ => unread(),
                });
                if let Some(place) = found.get_mut(row) {
                    *place = logits;
                }
            }
        }
        found
    }
}
