//! A content made ready for one judge before it waits for it: what takes time and no turn.

use std::sync::Arc;

use shieldgate_models::Judge;
use tokio::sync::Semaphore;

use super::Lane;
use super::job::{Shown, View};

/// Contents that are made ready at once, for all judges: each may take many times its picture's memory while it is
/// made smaller. Bulk work has places of its own, half as many, so that nobody waits behind it.
#[derive(Clone)]
pub(super) struct Places {
    interactive: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new(cores: usize) -> Self {
        let of = |places: usize| Arc::new(Semaphore::new(places.max(1)));
        Self { interactive: of(cores), bulk: of(cores / 2) }
    }

    pub(super) fn of(&self, lane: Lane) -> Arc<Semaphore> {
        Arc::clone(match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        })
    }
}

/// One view as the judge will look at it.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) shown: Shown,
    /// In the judge's own unit; at least 1.
    pub(super) work: usize,
}

/// Blocks for some milliseconds a picture.
pub(super) fn prepare(judge: &dyn Judge, views: &[View]) -> Vec<Prepared> {
    views.iter().map(|view| prepared(judge, view)).collect()
}

fn prepared(judge: &dyn Judge, view: &View) -> Prepared {
    let work = judge.work(view.shown.content()).max(1);
    let shown = match &view.shown {
        Shown::Picture(picture) => judge.reduced(picture).map_or_else(|| view.shown.clone(), Shown::Picture),
        Shown::Text(_) => view.shown.clone(),
    };
    Prepared { shown, work }
}
