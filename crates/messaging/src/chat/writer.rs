//! The group commit's clock: a queue and the task that empties it.
//!
//! A writer takes what is there, commits it as one transaction, and takes what came meanwhile; no
//! timer. Alone, a message pays one commit; under load, hundreds share one. Two writers, each with
//! the conversations of one hash, keep one commit in flight while the next batch fills.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    errors::Error,
    ids::UserId,
    storage::{
        Store,
        batch::{Applied, Batch, NewMessage, Receipt, Receipted, Sent, Target},
    },
};

/// Writers, each with a queue and a connection of its own.
const WRITERS: usize = 2;
/// Past this size a batch gains little and its first message waits long.
const MAX_BATCH: usize = 256;
/// Commands that may wait; at a few thousand a second that is about a second's worth. What comes
/// later is told at once that the service is busy.
const MAX_QUEUED: usize = 8192;
/// Committed batches whose events are still being made.
const MAX_UNPUBLISHED: usize = 8;

/// Something for a writer to write, and where to say what became of it.
enum Command {
    Send(Box<NewMessage>, Answer<Sent>),
    Receipt(Receipt, Option<Answer<Receipted>>),
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// A committed batch with those who wait for its answers.
pub struct Committed {
    /// What became of it.
    pub applied: Applied,
    waiting: Waiting,
}

#[derive(Default)]
struct Waiting {
    sends: Vec<Answer<Sent>>,
    receipts: Vec<Option<Answer<Receipted>>>,
}

impl Committed {
    /// Answers everybody; to be called once the events are out.
    pub fn answer(self) {
        for (answer, outcome) in self.waiting.sends.into_iter().zip(self.applied.sends) {
            // Whoever asked may be gone; the message is stored all the same.
            let _ = answer.send(outcome);
        }
        for (answer, outcome) in self.waiting.receipts.into_iter().zip(self.applied.receipts) {
            if let Some(answer) = answer {
                let _ = answer.send(outcome);
            }
        }
    }
}

/// The queues of all writers. Cheap to clone; the writers end when the last clone is gone.
#[derive(Clone)]
pub struct Writers {
    queues: Vec<mpsc::Sender<Command>>,
}

impl std::fmt::Debug for Writers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Writers").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

impl Writers {
    /// Starts the writers. Each committed batch goes to `publish`, one after the other per writer;
    /// `uncertain` hears of users whose batch may have been stored although it seemed to fail.
    pub fn start<P, F>(store: &Store, timeout: Duration, publish: P, uncertain: mpsc::UnboundedSender<Vec<UserId>>) -> Self
    where
        P: Fn(Committed) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        let queues = (0..WRITERS)
            .map(|_| {
                let (queue, commands) = mpsc::channel(MAX_QUEUED);
                let (committed, mut unpublished) = mpsc::channel(MAX_UNPUBLISHED);
                let publish = publish.clone();
                tokio::spawn(async move {
                    while let Some(batch) = unpublished.recv().await {
                        publish(batch).await;
                    }
                });
                tokio::spawn(write(store.clone(), timeout, commands, committed, uncertain.clone()));
                queue
            })
            .collect();
        Self { queues }
    }

    /// Queues a message and answers where its outcome will come. An error means the queue is full.
    pub fn send(&self, message: NewMessage) -> Result<oneshot::Receiver<Result<Sent, Error>>, Error> {
        let queue = match message.target {
            Target::Conversation(id) => self.queue_of(&id),
            Target::User { receiver_id, product_id } => {
                let sender_id = message.sender_id;
                self.queue_of(&(sender_id.min(receiver_id), sender_id.max(receiver_id), product_id))
            }
        };
        let (answer, outcome) = oneshot::channel();
        queue.try_send(Command::Send(Box::new(message), answer)).map_err(|_| Error::unavailable())?;
        Ok(outcome)
    }

    /// Queues a receipt and waits for its outcome.
    pub async fn receipt(&self, receipt: Receipt) -> Result<Receipted, Error> {
        let (answer, outcome) = oneshot::channel();
        self.queue_of(&receipt.conversation_id)
            .try_send(Command::Receipt(receipt, Some(answer)))
            .map_err(|_| Error::unavailable())?;
        outcome.await.map_err(|_| Error::unavailable())?
    }

    /// Queues a receipt that nobody waits for. Gives it back if the queue is full.
    pub fn receipt_unattended(&self, receipt: Receipt) -> Result<(), Receipt> {
        let queue = self.queue_of(&receipt.conversation_id);
        queue.try_send(Command::Receipt(receipt, None)).map_err(|refused| match refused.into_inner() {
            Command::Receipt(receipt, _) => receipt,
            Command::Send(..) => unreachable!("a receipt was queued"),
        })
    }

    /// How many commands wait.
    pub fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.max_capacity() - queue.capacity()).sum()
    }

    fn queue_of(&self, key: &impl Hash) -> &mpsc::Sender<Command> {
        // One hash for all: the messages of a conversation stay in the order they came.
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % WRITERS as u64).expect("less than WRITERS");
        &self.queues[place]
    }
}

async fn write(
    store: Store,
    timeout: Duration,
    mut commands: mpsc::Receiver<Command>,
    committed: mpsc::Sender<Committed>,
    uncertain: mpsc::UnboundedSender<Vec<UserId>>,
) {
    let mut taken = Vec::with_capacity(MAX_BATCH);
    while commands.recv_many(&mut taken, MAX_BATCH).await > 0 {
        let (batch, waiting) = sort(taken.drain(..));
        let began = Instant::now();
        // A frozen server answers nothing at all, not even a refusal.
        let outcome = tokio::time::timeout(timeout, store.apply(&batch)).await;
        let error = match outcome {
            Ok(Ok(applied)) => {
                tracing::debug!(
                    messages = batch.sends.len(),
                    receipts = batch.receipts.len(),
                    duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
                    "a batch was committed"
                );
                if committed.send(Committed { applied, waiting }).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Err(error)) => Error::from(error),
            Err(_) => {
                tracing::warn!(
                    timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                    "the database did not answer a batch in time"
                );
                Error::unavailable()
            }
        };
        if !error.retryable() || matches!(error, Error::Internal(_)) {
            tracing::error!(error = ?error, "a batch failed");
        }
        // The commit may have gone through and only its answer been lost.
        let _ = uncertain.send(users_of(&batch));
        refuse(waiting);
    }
}

fn sort(commands: impl Iterator<Item = Command>) -> (Batch, Waiting) {
    let (mut batch, mut waiting) = (Batch::default(), Waiting::default());
    for command in commands {
        match command {
            Command::Send(message, answer) => {
                batch.sends.push(*message);
                waiting.sends.push(answer);
            }
            Command::Receipt(receipt, answer) => {
                batch.receipts.push(receipt);
                waiting.receipts.push(answer);
            }
        }
    }
    (batch, waiting)
}

fn users_of(batch: &Batch) -> Vec<UserId> {
    let senders = batch.sends.iter().map(|send| send.sender_id);
    let receivers = batch.sends.iter().filter_map(|send| match send.target {
        Target::User { receiver_id, .. } => Some(receiver_id),
        Target::Conversation(_) => None,
    });
    senders.chain(receivers).chain(batch.receipts.iter().map(|receipt| receipt.user_id)).collect()
}

fn refuse(waiting: Waiting) {
    for answer in waiting.sends {
        let _ = answer.send(Err(Error::unavailable()));
    }
    for answer in waiting.receipts.into_iter().flatten() {
        let _ = answer.send(Err(Error::unavailable()));
    }
}
