//! Who waits in one lane, in which order they have their turns.

use std::collections::VecDeque;
use std::time::Instant;

/// A view of a job whose turn it is.
#[derive(Debug, Clone)]
pub(super) struct Part<T> {
    pub(super) job: T,
    pub(super) view: usize,
    pub(super) work: usize,
    ticket: u64,
    deadline: Instant,
}

/// A job with views that wait.
pub(super) struct Waiting<T> {
    pub(super) job: T,
    pub(super) deadline: Instant,
    ticket: u64,
    /// Each view's, from the one after which no batch had any.
    work: VecDeque<usize>,
    /// The first of them.
    next: usize,
    /// Views before it whose batch was interrupted, and their work, the last first.
    again: Vec<(usize, usize)>,
    /// Work of all of them.
    left: usize,
}

impl<T> Waiting<T> {
    /// Work.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The view whose turn it is, and its work.
    fn first(&self) -> Option<(usize, usize)> {
        self.again.last().copied().or_else(|| Some((self.next, *self.work.front()?)))
    }

    fn take(&mut self) -> Option<(usize, usize)> {
        let (view, work) = self.first()?;
        if self.again.pop().is_none() {
            self.work.pop_front();
            self.next += 1;
        }
        self.left -= work;
        Some((view, work))
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
    /// `work`: each view's.
    pub(super) fn push(&mut self, job: T, work: Vec<usize>, deadline: Instant) {
        self.tickets += 1;
        let work: VecDeque<usize> = if work.is_empty() { VecDeque::from([1]) } else { work.into() };
        let (ticket, left) = (self.tickets, work.iter().sum());
        self.waiting.push_back(Waiting { job, deadline, ticket, work, next: 0, again: Vec::new(), left });
    }

    /// Jobs take turns view by view, until `room` for work is used up or there are `most`; one view fits always.
    pub(super) fn take(&mut self, room: usize, most: usize) -> Vec<Part<T>> {
        let (mut parts, mut taken) = (Vec::new(), 0);
        while let Some((_, work)) = self.waiting.front().and_then(Waiting::first)
            && (parts.is_empty() || (parts.len() < most && taken + work <= room))
            && let Some(mut first) = self.waiting.pop_front()
            && let Some((view, work)) = first.take()
        {
            taken += work;
            let (job, ticket, deadline) = (first.job.clone(), first.ticket, first.deadline);
            parts.push(Part { job, view, work, ticket, deadline });
            if first.first().is_some() {
                self.waiting.push_back(first);
            }
        }
        parts
    }

    /// They had no turn after all, and come first, in the order that they had.
    pub(super) fn put_back(&mut self, parts: Vec<Part<T>>) {
        for Part { job, view, work, ticket, deadline } in parts.into_iter().rev() {
            let at = self.waiting.iter().position(|one| one.ticket == ticket);
            let mut one = at.and_then(|at| self.waiting.remove(at)).unwrap_or(Waiting {
                job,
                deadline,
                ticket,
                work: VecDeque::new(),
                next: 0,
                again: Vec::new(),
                left: 0,
            });
            one.again.push((view, work));
            one.left += work;
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

    /// Work of the view whose turn it is.
    pub(super) fn next_work(&self) -> usize {
        self.waiting.front().and_then(Waiting::first).map_or(0, |(_, work)| work)
    }

    /// Work.
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
            line.take(room, 9).into_iter().map(|part| (part.job, part.view)).collect()
        };
        let deadline = Instant::now();
        for (job, views) in [('a', 3), ('b', 1), ('c', 2)] {
            line.push(job, vec![1; views], deadline);
        }
        let first = line.take(5, 9);
        assert_eq!(line.len(), 1, "only `a` has a view left");
        line.put_back(first);
        assert_eq!((line.len(), line.left()), (3, 6));
        assert_eq!(taken(&mut line, 5), [('a', 0), ('b', 0), ('c', 0), ('a', 1), ('c', 1)]);
        assert_eq!(taken(&mut line, 5), [('a', 2)]);
        assert!(line.is_empty());

        // Some of it was done all the same.
        line.push('d', vec![1; 4], deadline);
        let mut parts = line.take(3, 9);
        parts.remove(1);
        line.put_back(parts);
        assert_eq!(taken(&mut line, 9), [('d', 0), ('d', 2), ('d', 3)]);
    }

    #[test]
    fn a_batch_has_room_for_so_much_work_and_so_many_and_for_one_always() {
        let mut line = Line::default();
        let deadline = Instant::now();
        for (job, work) in [('a', vec![30]), ('b', vec![5, 500]), ('c', vec![5]), ('d', vec![1])] {
            line.push(job, work, deadline);
        }
        let mut batch = |room, most| -> Vec<(char, usize)> {
            line.take(room, most).into_iter().map(|part| (part.job, part.work)).collect()
        };
        assert_eq!(batch(36, 9), [('a', 30), ('b', 5)], "the third would be too much");
        assert_eq!(batch(40, 1), [('c', 5)]);
        // None is overtaken because it is long.
        assert_eq!(batch(40, 9), [('d', 1)]);
        assert_eq!(batch(40, 9), [('b', 500)]);
        assert_eq!((line.len(), line.left(), line.next_work()), (0, 0, 0));
    }
}
