//! Work cut into pieces that workers take one after the other, each with totals of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Result;

/// Totals of one worker, added up at the end.
pub trait Merge: Send + Sync {
    /// Finish what was put off; called once, when the last piece is done.
    fn settle(&mut self) {}

    fn merge(&mut self, other: Self);
}

/// Totals of work that adds nothing up: it is done, or the whole failed.
#[derive(Clone)]
pub struct Nothing;

impl Merge for Nothing {
    fn merge(&mut self, _: Self) {}
}

/// Work through `pieces` with `threads` workers, each with its own sink; merge the sinks and add up the counts.
pub fn run_pieces<P: Sync, S: Merge + Clone>(
    pieces: &[P],
    sink: S,
    threads: usize,
    run: impl Fn(&P, &mut S) -> Result<u64> + Sync,
) -> Result<(S, u64)> {
    let next = AtomicUsize::new(0);
    let outcome: Mutex<Result<(S, u64)>> = Mutex::new(Ok((sink.clone(), 0)));
    let work = || {
        let mut mine = sink.clone();
        let mut counted = 0;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(at) else { break };
            match run(piece, &mut mine) {
                Ok(rows) => counted += rows,
                Err(error) => {
                    next.store(pieces.len(), Ordering::Relaxed);
                    let mut outcome = outcome.lock().expect("no worker panics while holding it");
                    if outcome.is_ok() {
                        *outcome = Err(error);
                    }
                    return;
                }
            }
        }
        mine.settle();
        if let Ok((total, rows)) = outcome.lock().expect("no worker panics while holding it").as_mut() {
            total.merge(mine);
            *rows += counted;
        }
    };
    if threads <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    outcome.into_inner().expect("no worker panics while holding it")
}
