//! Who waits in one lane, in which order they have their turns.

use std::collections::VecDeque;
use std::time::Instant;

/// A view of a job whose turn it is.
#[derive(Debug, Clone)]
pub(super) struct Part<T> {
    pub(super) job: T,
    pub(super) view: usize,
    ticket: u64,
    deadline: Instant,
}

/// A job with views that wait.
pub(super) struct Waiting<T> {
    pub(super) job: T,
    pub(super) deadline: Instant,
    ticket: u64,
    views: usize,
    /// The first view that no batch had yet.
    next: usize,
    /// Views before it whose batch was interrupted, the last first.
    again: Vec<usize>,
}

impl<T> Waiting<T> {
    pub(super) fn left(&self) -> usize {
        self.again.len() + self.views.saturating_sub(self.next)
    }
}

pub(super) struct Line<T> {
    waiting: VecDeque<Waiting<T>>,
    tickets: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), tickets: 0 }
    }
}

impl<T: Clone> Line<T> {
    pub(super) fn push(&mut self, job: T, views: usize, deadline: Instant) {
        self.tickets += 1;
        let (ticket, views) = (self.tickets, views.max(1));
        self.waiting.push_back(Waiting { job, deadline, ticket, views, next: 0, again: Vec::new() });
    }

    /// Jobs take turns view by view.
    pub(super) fn take(&mut self, room: usize) -> Vec<Part<T>> {
        let mut parts = Vec::new();
        while parts.len() < room
            && let Some(mut first) = self.waiting.pop_front()
        {
            let view = first.again.pop().unwrap_or_else(|| {
                first.next += 1;
                first.next - 1
            });
            let (job, ticket, deadline) = (first.job.clone(), first.ticket, first.deadline);
            parts.push(Part { job, view, ticket, deadline });
            if first.left() > 0 {
                self.waiting.push_back(first);
            }
        }
        parts
    }

    /// They had no turn after all, and come first, in the order that they had.
    pub(super) fn put_back(&mut self, parts: Vec<Part<T>>) {
        for Part { job, view, ticket, deadline } in parts.into_iter().rev() {
            let at = self.waiting.iter().position(|one| one.ticket == ticket);
            let mut one = at.and_then(|at| self.waiting.remove(at)).unwrap_or(Waiting {
                job,
                deadline,
                ticket,
                views: 0,
                next: 0,
                again: Vec::new(),
            });
            one.again.push(view);
            self.waiting.push_front(one);
        }
    }

    /// Jobs.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Views.
    pub(super) fn left(&self) -> usize {
        self.waiting.iter().map(Waiting::left).sum()
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Waiting<T>) -> bool) {
        self.waiting.retain(keep);
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.waiting.drain(..).map(|one| one.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_back_has_its_turn_again_in_its_order() {
        let mut line = Line::default();
        let taken = |line: &mut Line<char>, room| -> Vec<(char, usize)> {
            line.take(room).into_iter().map(|part| (part.job, part.view)).collect()
        };
        let deadline = Instant::now();
        for (job, views) in [('a', 3), ('b', 1), ('c', 2)] {
            line.push(job, views, deadline);
        }
        let first = line.take(5);
        assert_eq!(line.len(), 1, "only `a` has a view left");
        line.put_back(first);
        assert_eq!((line.len(), line.left()), (3, 6));
        assert_eq!(taken(&mut line, 5), [('a', 0), ('b', 0), ('c', 0), ('a', 1), ('c', 1)]);
        assert_eq!(taken(&mut line, 5), [('a', 2)]);
        assert!(line.is_empty());

        // Some of it was done all the same.
        line.push('d', 4, deadline);
        let mut parts = line.take(3);
        parts.remove(1);
        line.put_back(parts);
        assert_eq!(taken(&mut line, 9), [('d', 0), ('d', 2), ('d', 3)]);
    }
}
