//! A content made ready for one judge before it waits for it: what takes time and no turn.

use shieldgate_models::Judge;

use super::job::{Shown, View};

/// One view as the judge will look at it.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) shown: Shown,
    /// In the judge's own unit; at least 1.
    pub(super) work: usize,
}

/// Blocks for some milliseconds a picture; the views of one content use all cores.
pub(super) fn prepare(judge: &dyn Judge, views: &[View]) -> Vec<Prepared> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = views.len().div_ceil(cores).max(1);
    let all = |views: &[View]| views.iter().map(|view| prepared(judge, view)).collect::<Vec<_>>();
    if share == views.len() {
        return all(views);
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = views.chunks(share).map(|part| scope.spawn(move || all(part))).collect();
        let joined = parts.into_iter().map(|part| part.join());
        joined.flat_map(|part| part.unwrap_or_else(|why| std::panic::resume_unwind(why))).collect()
    })
}

fn prepared(judge: &dyn Judge, view: &View) -> Prepared {
    let work = judge.work(view.shown.content()).max(1);
    let shown = match &view.shown {
        Shown::Picture(picture) => judge.reduced(picture).map_or_else(|| view.shown.clone(), Shown::Picture),
        Shown::Text(_) => view.shown.clone(),
    };
    Prepared { shown, work }
}
