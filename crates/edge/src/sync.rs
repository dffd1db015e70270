//! The lock around what several tasks touch of one connection.
//!
//! Under the feature `loom` it is one whose every interleaving a model tries; the models are below.

#[cfg(not(feature = "loom"))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

#[cfg(feature = "loom")]
pub(crate) use checked::{Mutex, MutexGuard};

#[cfg(feature = "loom")]
mod checked {
    pub(crate) use loom::sync::MutexGuard;

    /// parking_lot's interface over loom's lock.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("nothing panics while it holds the lock")
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod tests {
    use std::sync::Arc;
    use std::task::Poll;

    use bytes::Bytes;
    use loom::thread;

    use crate::config::EdgeConfig;
    use crate::handler::{CloseReason, Dialect};
    use crate::link::{Link, Outgoing};
    use crate::shared::Shared;

    /// All interleavings with up to three preemptions, in which nearly all faults show; without the bound there are
    /// too many to try.
    fn model(body: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(body);
    }

    fn link() -> Arc<Link> {
        let shared = Arc::new(Shared::new(EdgeConfig::default()));
        Arc::new(Link::new(shared, 1, [127, 0, 0, 1].into(), Dialect::Plain))
    }

    fn item(sender: u8, number: u8) -> Outgoing {
        Outgoing::Frames(Bytes::from(vec![sender, number]))
    }

    /// The connection's task, as `driver` has it: a turn, then rest until woken. A wake-up that gets lost leaves it
    /// asleep for ever, which loom reports as a deadlock.
    fn drive(link: &Arc<Link>, until: impl Fn(&[(u8, u8)]) -> bool) -> Vec<(u8, u8)> {
        let mut got = Vec::new();
        loom::future::block_on(std::future::poll_fn(|cx| {
            loop {
                link.begin();
                let mut written = 0;
                loop {
                    written = link.take(written, 1, usize::MAX, |item| match item {
                        Outgoing::Frames(bytes) => got.push((bytes[0], bytes[1])),
                        other => panic!("{other:?}"),
                    });
                    if written == 0 {
                        break;
                    }
                }
                if until(&got) {
                    return Poll::Ready(());
                }
                if link.rest(cx.waker(), false) {
                    return Poll::Pending;
                }
            }
        }));
        got
    }

    #[test]
    fn in_every_interleaving_all_that_is_pushed_comes_out_in_order() {
        model(|| {
            let link = link();
            let pushers: Vec<_> = [1, 2]
                .map(|sender| {
                    let link = Arc::clone(&link);
                    thread::spawn(move || {
                        for number in 1..=2 {
                            link.push(u64::from(sender), item(sender, number));
                        }
                    })
                })
                .into();
            let got = drive(&link, |got| got.len() == 4);
            for pusher in pushers {
                pusher.join().unwrap();
            }
            for sender in [1, 2] {
                let of_sender: Vec<_> = got.iter().filter(|(from, _)| *from == sender).collect();
                assert_eq!(of_sender, [&(sender, 1), &(sender, 2)]);
            }
            assert_eq!((link.is_empty(), link.queued_bytes()), (true, 0));
        });
    }

    #[test]
    fn in_every_interleaving_a_close_is_noticed_and_nothing_is_let_in_after_it() {
        model(|| {
            let link = link();
            let pusher = {
                let link = Arc::clone(&link);
                thread::spawn(move || {
                    link.push(1, item(1, 1));
                    link.close(CloseReason::Kicked(4000).into());
                    link.push(1, item(1, 2));
                })
            };
            let closer = {
                let link = Arc::clone(&link);
                thread::spawn(move || link.close(CloseReason::Restart.into()))
            };
            let got = drive(&link, |_| link.closing().is_some());
            pusher.join().unwrap();
            closer.join().unwrap();
            let rest = drive(&link, |_| true);
            let reason = link.closing().map(|ending| ending.reason);
            let all: Vec<_> = got.into_iter().chain(rest).collect();
            match reason {
                // A restart lets what is under way go out; a kick lets nothing in after it.
                Some(CloseReason::Restart) => assert!(all.len() <= 2 && all.is_sorted()),
                Some(CloseReason::Kicked(4000)) => assert_eq!(all, [(1, 1)]),
                other => panic!("{other:?}"),
            }
        });
    }

    #[test]
    fn in_every_interleaving_a_poke_ends_the_rest() {
        model(|| {
            let link = link();
            let waker = {
                let link = Arc::clone(&link);
                thread::spawn(move || {
                    link.push(1, item(1, 1));
                    link.wake();
                })
            };
            let turns = std::cell::Cell::new(0);
            // Ends only with the turn that the poke causes, or that sees it already done.
            let got = drive(&link, |got| {
                turns.set(turns.get() + 1);
                got.len() == 1
            });
            waker.join().unwrap();
            assert_eq!(got, [(1, 1)]);
            assert!(turns.get() <= 3, "woken for nothing: {}", turns.get());
        });
    }
}
