//! What is uploaded: some photographs, made into as many different contents as a profile needs.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::upload::Bodies;

/// Photographs of 59 to 76 KB that stand in the repository, so that the program runs from anywhere.
const PHOTOGRAPHS: [&[u8]; 4] = [
    include_bytes!("../../service/samples/astronaut.jpg"),
    include_bytes!("../../service/samples/coffee.jpg"),
    include_bytes!("../../service/samples/hubble.jpg"),
    include_bytes!("../../service/samples/temple.jpg"),
];

/// The 64 KB one.
pub(crate) fn photograph_64_kb() -> Vec<u8> {
    PHOTOGRAPHS[2].to_vec()
}

/// The named files, or the photographs that come with the program.
pub(crate) fn load(files: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    if files.is_empty() {
        return Ok(PHOTOGRAPHS.iter().map(|bytes| bytes.to_vec()).collect());
    }
    let read = |file: &PathBuf| {
        std::fs::read(file).with_context(|| format!("picture `{}` can't be read", file.display()))
    };
    files.iter().map(read).collect()
}

/// Which content comes next.
#[derive(Debug, Clone)]
pub(crate) enum Mix {
    /// A new content each time: nothing is recalled.
    Fresh,
    /// The pictures as they are, in turn: all but the first of each are recalled.
    Same,
    /// Out of a fixed number of contents, the `k`-th with the weight `1 / k^exponent`.
    Zipf(Zipf),
}

/// Zipf's distribution over ranks from 0, as a table.
#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    /// The chance of this rank or a lower one; ends with 1.
    cumulated: Vec<f64>,
}

impl Zipf {
    /// `contents` is at least 1.
    pub(crate) fn new(contents: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = (1..=contents)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        cumulated.iter_mut().for_each(|chance| *chance /= sum);
        Self { cumulated }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let at = random.f64();
        self.cumulated.partition_point(|chance| *chance <= at).min(self.cumulated.len() - 1)
    }
}

/// An endless row of contents.
#[derive(Debug)]
pub(crate) struct Source {
    originals: Vec<Vec<u8>>,
    mix: Mix,
    /// Stands in every appended byte string, so that two sources have no content in common.
    name: String,
    random: fastrand::Rng,
    next: usize,
}

impl Source {
    /// `originals` is not empty. The same seed gives the same row of picks; contents differ from run to
    /// run all the same, or a second run against one gate would recall what the first had judged.
    pub(crate) fn new(originals: Vec<Vec<u8>>, mix: Mix, stream: &str, seed: u64) -> Self {
        let name = format!("{stream} {:016x}", fastrand::u64(..));
        Self { originals, mix, name, random: fastrand::Rng::with_seed(seed), next: 0 }
    }
}

impl Bodies for Source {
    fn next(&mut self) -> Vec<u8> {
        let variant = match &self.mix {
            Mix::Fresh => self.next,
            Mix::Same => {
                let original = self.originals[self.next % self.originals.len()].clone();
                self.next += 1;
                return original;
            }
            Mix::Zipf(zipf) => zipf.draw(&mut self.random),
        };
        self.next += 1;
        let mut bytes = self.originals[variant % self.originals.len()].clone();
        // After the picture's end, where no decoder looks: another content that judges see alike.
        bytes.extend_from_slice(format!("\n{} {variant}\n", self.name).as_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn fresh_contents_never_repeat_and_begin_with_the_picture() {
        let originals = load(&[]).expect("they are built in");
        let (mut one, mut other) = (
            Source::new(originals.clone(), Mix::Fresh, "a", 1),
            Source::new(originals.clone(), Mix::Fresh, "a", 1),
        );
        let mut seen = HashSet::new();
        for n in 0..20 {
            for source in [&mut one, &mut other] {
                let bytes = source.next();
                assert!(bytes.starts_with(&originals[n % 4]));
                assert!(seen.insert(bytes));
            }
        }
    }

    #[test]
    fn zipf_s_first_content_comes_most_often_and_all_come() {
        let mut source = Source::new(load(&[]).expect("built in"), Mix::Zipf(Zipf::new(50, 1.0)), "z", 3);
        let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
        for _ in 0..20_000 {
            *counts.entry(source.next()).or_default() += 1;
        }
        let mut counts: Vec<u32> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(counts.len(), 50);
        // 1 / H(50) = 0.2223 of all, and the second half as often.
        assert!((4_100..4_800).contains(&counts[0]), "{counts:?}");
        assert!((1_950..2_500).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn a_missing_picture_is_named() {
        let error = load(&["no/such.jpg".into()]).expect_err("it is not there");
        assert_eq!(error.to_string(), "picture `no/such.jpg` can't be read");
    }
}
