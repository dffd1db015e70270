//! The group commit's clock: a queue and the task that empties it.
//!
//! A writer takes what is there, commits it as one transaction, and takes what came meanwhile; no
//! timer. Alone, a message pays one commit; under load, hundreds share one. Two writers, each with
//! the conversations of one hash, keep one commit in flight while the next batch fills.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    errors::Error,
    ids::MessageId,
    metrics,
    storage::{
        Store, StoreError,
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
    Send(Box<NewMessage>, Answer<Stored>),
    Receipt(Receipt, Option<Answer<Receipted>>),
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// A message that is stored, and its JSON text if it is new: made once, for the events and for the answer.
#[derive(Debug)]
pub(super) struct Stored {
    /// What became of it.
    pub(super) sent: Sent,
    /// The message as everybody sees it.
    pub(super) json: Option<Arc<str>>,
}

/// The JSON texts of a batch's new messages.
pub(super) type Rendered = HashMap<MessageId, Arc<str>>;

/// A committed batch with those who wait for its answers.
pub(super) struct Committed {
    /// What became of it.
    pub(super) applied: Applied,
    waiting: Waiting,
}

#[derive(Default)]
struct Waiting {
    sends: Vec<Answer<Stored>>,
    receipts: Vec<Option<Answer<Receipted>>>,
}

impl Committed {
    /// Answers everybody; to be called once the events are out.
    pub(super) fn answer(self, rendered: &Rendered) {
        for (answer, outcome) in self.waiting.sends.into_iter().zip(self.applied.sends) {
            let outcome = outcome.map(|sent| {
                let json = match &sent {
                    Sent::New { message, .. } => rendered.get(&message.id).cloned(),
                    Sent::Before(_) => None,
                };
                Stored { sent, json }
            });
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
pub(super) struct Writers {
    queues: Vec<mpsc::Sender<Command>>,
}

impl std::fmt::Debug for Writers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Writers").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

impl Writers {
    /// Starts the writers. Each committed batch goes to `publish`, one after the other per writer;
    /// `uncertain` is told of a batch that may have been stored although it seemed to fail.
    pub(super) fn start<P, F>(store: &Store, timeout: Duration, publish: P, uncertain: &Arc<Notify>) -> Self
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
                tokio::spawn(write(store.clone(), timeout, commands, committed, Arc::clone(uncertain)));
                queue
            })
            .collect();
        Self { queues }
    }

    /// Queues a message and answers where its outcome will come. An error means the queue is full.
    pub(super) fn send(
        &self,
        message: NewMessage,
    ) -> Result<oneshot::Receiver<Result<Stored, Error>>, Error> {
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
    pub(super) async fn receipt(&self, receipt: Receipt) -> Result<Receipted, Error> {
        let (answer, outcome) = oneshot::channel();
        self.queue_of(&receipt.conversation_id)
            .try_send(Command::Receipt(receipt, Some(answer)))
            .map_err(|_| Error::unavailable())?;
        outcome.await.map_err(|_| Error::unavailable())?
    }

    /// Queues a receipt that nobody waits for. Gives it back if the queue is full.
    pub(super) fn receipt_unattended(&self, receipt: Receipt) -> Result<(), Receipt> {
        let queue = self.queue_of(&receipt.conversation_id);
        queue.try_send(Command::Receipt(receipt, None)).map_err(|refused| match refused.into_inner() {
            Command::Receipt(receipt, _) => receipt,
            Command::Send(..) => unreachable!("a receipt was queued"),
        })
    }

    /// How many commands wait.
    pub(super) fn queued(&self) -> usize {
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
    uncertain: Arc<Notify>,
) {
    let mut taken = Vec::with_capacity(MAX_BATCH);
    while commands.recv_many(&mut taken, MAX_BATCH).await > 0 {
        let (batch, waiting) = sort(taken.drain(..));
        let mut parts = vec![(batch, waiting)];
        while let Some((batch, waiting)) = parts.pop() {
            match commit(&store, timeout, &batch).await {
                Ok(applied) => {
                    if committed.send(Committed { applied, waiting }).await.is_err() {
                        return;
                    }
                }
                // Some row breaks the statement: alone, it breaks only its own.
                Err(StoreError::Defect(_)) if batch.sends.len() + batch.receipts.len() > 1 => {
                    parts.extend(one_by_one(batch, waiting));
                }
                Err(error) => {
                    metrics::get().batch_failed(&batch);
                    // The commit may have gone through and only its answer been lost.
                    uncertain.notify_one();
                    refuse(waiting, &error);
                }
            }
        }
    }
}

async fn commit(store: &Store, timeout: Duration, batch: &Batch) -> Result<Applied, StoreError> {
    let began = Instant::now();
    // A frozen server answers nothing at all, not even a refusal.
    let applied = tokio::time::timeout(timeout, store.apply(batch))
        .await
        .unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))?;
    metrics::get().batch_committed(batch, &applied, began.elapsed());
    tracing::debug!(
        messages = batch.sends.len(),
        receipts = batch.receipts.len(),
        duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        "a batch was committed"
    );
    Ok(applied)
}

/// Last first, so that they are popped in order.
fn one_by_one(batch: Batch, waiting: Waiting) -> Vec<(Batch, Waiting)> {
    let sends = batch.sends.into_iter().zip(waiting.sends).map(|(send, answer)| {
        let batch = Batch { sends: vec![send], receipts: Vec::new() };
        (batch, Waiting { sends: vec![answer], receipts: Vec::new() })
    });
    let receipts = batch.receipts.into_iter().zip(waiting.receipts).map(|(receipt, answer)| {
        let batch = Batch { sends: Vec::new(), receipts: vec![receipt] };
        (batch, Waiting { sends: Vec::new(), receipts: vec![answer] })
    });
    let mut parts: Vec<_> = sends.chain(receipts).collect();
    parts.reverse();
    parts
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

fn refuse(waiting: Waiting, error: &StoreError) {
    let refusal = || match error {
        StoreError::Defect(_) => Error::internal("the message could not be stored"),
        StoreError::Unavailable(_) | StoreError::Collision(_) => Error::unavailable(),
    };
    match error {
        StoreError::Defect(_) => tracing::error!(%error, "a message could not be stored"),
        StoreError::Unavailable(_) | StoreError::Collision(_) => {
            tracing::warn!(%error, waiting = waiting.sends.len(), "a batch was not stored");
        }
    }
    for answer in waiting.sends {
        let _ = answer.send(Err(refusal()));
    }
    for answer in waiting.receipts.into_iter().flatten() {
        let _ = answer.send(Err(refusal()));
    }
}
