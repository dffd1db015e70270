//! Sends the mails that wait: a few at a time, each from what is unread at that moment.
//!
//! A mail is taken for as long as an attempt can last; a node that dies meanwhile loses it to another.
//! What is read, muted or switched off by then is not told. Failures are tried again at growing
//! distances, and given up visibly.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use lettre::Address;
use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};

use super::{
    Inner,
    compose::{Parts, compose},
    new_claim,
    smtp::Failure,
    templates::{Digest, Excerpt, Shown},
    text::line,
};
use crate::{
    errors::Error,
    ids::{ConversationId, ProductId, UserId},
    metrics::{self, EmailOutcome},
    storage::{
        StoreError,
        contacts::ContactRow,
        emails::{PendingConversation, TakenEmail, UnreadMessage},
    },
};

/// Mails handed over at once.
const AT_ONCE: usize = 4;
/// Conversations shown in a mail; of the others it says how many there are.
const CONVERSATIONS: usize = 10;
/// Messages shown of a conversation.
const MESSAGES: i64 = 3;
/// Characters shown of a message, of a name, of a product's title.
const MESSAGE_CHARS: usize = 240;
const NAME_CHARS: usize = 60;
const TITLE_CHARS: usize = 80;
/// Attempts before a mail is given up: with the distances below, after an hour and a half.
const ATTEMPTS: i32 = 8;
/// The distance to the second attempt; each further one is twice as long, up to the longest.
const DISTANCE: Duration = Duration::from_secs(30);
const DISTANCE_MAX: Duration = Duration::from_secs(3600);
/// How long a server that does not answer is left alone by everybody.
const REST: Duration = Duration::from_secs(2);
/// What an attempt may take besides the conversation with the server.
const BESIDES: Duration = Duration::from_secs(5);
/// How often the end of a mail that is sent is written down before its lease has to run out.
const NOTES: u32 = 4;

pub(super) async fn run(inner: Arc<Inner>, mut stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(inner.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way: JoinSet<bool> = JoinSet::new();
    let mut rests_until = Instant::now();
    loop {
        tokio::select! {
            _ = stopping.changed() => break,
            () = inner.claimed.notified() => {}
            _ = ticks.tick() => inner.smtp.prune(),
            Some(ended) = under_way.join_next() => {
                if ended.unwrap_or(true) {
                    rests_until = Instant::now() + REST;
                }
            }
        }
        if Instant::now() < rests_until || under_way.len() >= AT_ONCE {
            continue;
        }
        let room = i64::try_from(AT_ONCE - under_way.len()).unwrap_or(0);
        let lease = inner.smtp_timeout * 2 + BESIDES;
        match inner.store.take_emails(room, inner.clock.now().plus(lease)).await {
            Ok(taken) => {
                for email in taken {
                    let inner = Arc::clone(&inner);
                    under_way.spawn(async move { inner.deliver(&email).await });
                }
            }
            Err(error) => tracing::warn!(%error, "waiting mails could not be looked up"),
        }
    }
    while under_way.join_next().await.is_some() {}
    inner.smtp.close().await;
}

/// What a mail came to.
struct Prepared {
    contact: ContactRow,
    digest: Digest,
    told: Vec<ConversationId>,
    dropped: Vec<ConversationId>,
}

impl Inner {
    /// Makes and sends a mail. Answers whether the mail server is away.
    async fn deliver(&self, email: &TakenEmail) -> bool {
        let prepared = match self.prepare(email.user_id).await {
            Ok(prepared) => prepared,
            Err(error) => {
                // Its lease runs out, then it is tried again.
                tracing::warn!(user_id = email.user_id.0, %error, "a mail could not be prepared");
                return false;
            }
        };
        let all = || [prepared.told.as_slice(), &prepared.dropped].concat();
        if prepared.told.is_empty() {
            self.settle(email, &[], &all(), EmailOutcome::Withdrawn).await;
            return false;
        }
        let failure = match self.send(email, &prepared).await {
            Ok(Ok(())) => {
                self.settle(email, &prepared.told, &prepared.dropped, EmailOutcome::Sent).await;
                return false;
            }
            Ok(Err(failure)) => failure,
            Err(error) => {
                tracing::error!(user_id = email.user_id.0, %error, "a mail could not be written");
                self.settle(email, &[], &all(), EmailOutcome::GivenUp).await;
                return false;
            }
        };
        tracing::warn!(user_id = email.user_id.0, attempt = email.attempts, %failure, "a mail was not taken");
        match failure {
            Failure::NoMailbox(_) => {
                if let Err(error) = self.store.refuse_contact(&prepared.contact).await {
                    tracing::warn!(%error, "a refused address could not be noted; it is tried once more");
                    return false;
                }
                self.settle(email, &[], &all(), EmailOutcome::Refused).await;
            }
            Failure::Refused(_) => self.settle(email, &[], &all(), EmailOutcome::GivenUp).await,
            Failure::Later(..) | Failure::TimedOut if email.attempts >= ATTEMPTS => {
                self.settle(email, &[], &all(), EmailOutcome::GivenUp).await;
            }
            Failure::Later(..) | Failure::TimedOut => {
                metrics::get().email(EmailOutcome::Retried);
                let until = self.clock.now().plus(distance(email.attempts));
                if let Err(error) = self.store.postpone_email(email, until).await {
                    tracing::warn!(%error, "a mail is tried again when its lease is over");
                }
            }
        }
        failure.is_server_away()
    }

    /// Writes the end of a mail down. A mail that was sent and not noted would be sent again.
    async fn settle(
        &self,
        email: &TakenEmail,
        told: &[ConversationId],
        dropped: &[ConversationId],
        outcome: EmailOutcome,
    ) {
        metrics::get().email(outcome);
        for note in 1..=NOTES {
            match self.store.settle_email(email, told, dropped, &new_claim()).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(note, %error, "the end of a mail could not be noted"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn prepare(&self, user: UserId) -> Result<Prepared, StoreError> {
        let pending = self.store.pending_conversations(user).await?;
        let contact = self.store.contact(user).await?;
        let is_reachable = contact.is_some();
        let contact = contact.unwrap_or(ContactRow { user_id: user, email: String::new(), language: None });
        let (mut told, mut dropped, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        for conversation in pending {
            let id = conversation.conversation_id;
            if !is_reachable || !conversation.is_wanted {
                dropped.push(id);
                continue;
            }
            if shown.len() < CONVERSATIONS {
                let messages = self.store.newest_unread(user, id, MESSAGES).await?;
                if messages.is_empty() {
                    // Read a moment ago.
                    dropped.push(id);
                    continue;
                }
                shown.push((conversation, messages));
            }
            told.push(conversation);
        }
        let digest = self.digest(user, &told, shown).await;
        let told = told.iter().map(|conversation| conversation.conversation_id).collect();
        Ok(Prepared { contact, digest, told, dropped })
    }

    async fn digest(
        &self,
        user: UserId,
        told: &[PendingConversation],
        shown: Vec<(PendingConversation, Vec<UnreadMessage>)>,
    ) -> Digest {
        let people: HashSet<UserId> = told.iter().map(|conversation| conversation.other_user_id).collect();
        let others: Vec<UserId> = shown.iter().map(|(conversation, _)| conversation.other_user_id).collect();
        let products: Vec<ProductId> =
            shown.iter().filter_map(|(conversation, _)| conversation.product_id).collect();
        let names = self.directory.users(&others, None).await;
        let titles = self.directory.products(&products, None).await;
        let conversations: Vec<Shown> = shown
            .into_iter()
            .map(|(conversation, messages)| {
                let unread = u64::try_from(conversation.unread_count).unwrap_or(0);
                let id = conversation.conversation_id.to_string();
                let name = names.get(&conversation.other_user_id);
                let title = conversation.product_id.and_then(|product| titles.get(&product));
                Shown {
                    name: name.map_or_else(String::new, |profile| line(&profile.name, NAME_CHARS)),
                    product: title.map(|card| line(&card.title, TITLE_CHARS)),
                    more: unread.saturating_sub(messages.len() as u64),
                    messages: messages.into_iter().map(excerpt).collect(),
                    link: self.app_url.replace("{conversation_id}", &id),
                }
            })
            .collect();
        let first = conversations.first();
        let unread = told.iter().map(|conversation| u64::try_from(conversation.unread_count).unwrap_or(0));
        Digest {
            people: people.len(),
            name: first.map(|shown| shown.name.clone()).unwrap_or_default(),
            product: first.filter(|_| told.len() == 1).and_then(|shown| shown.product.clone()),
            unread: unread.sum(),
            more_conversations: told.len().saturating_sub(conversations.len()),
            conversations,
            unsubscribe: format!("{}{}", self.public_url, self.links.path(user, self.clock.now())),
        }
    }

    /// The error is one of ours: the mail cannot even be written.
    async fn send(&self, email: &TakenEmail, prepared: &Prepared) -> Result<Result<(), Failure>, Error> {
        let to: Address = prepared.contact.email.parse().map_err(Error::internal)?;
        let language = self.templates.language(prepared.contact.language.as_deref());
        let written = self.templates.write(language, &prepared.digest).map_err(Error::internal)?;
        let mail = compose(&Parts {
            from: &self.from,
            to: &to,
            claim: &email.claim,
            written: &written,
            unsubscribe: &prepared.digest.unsubscribe,
            now: self.clock.now(),
        });
        Ok(self.smtp.send(&self.from.email, &to, &mail.map_err(Error::internal)?).await)
    }
}

fn excerpt(message: UnreadMessage) -> Excerpt {
    Excerpt {
        kind: message.kind,
        text: line(&message.content, MESSAGE_CHARS),
        file: message.attachment_name.map(|name| line(&name, NAME_CHARS)),
    }
}

/// How long to wait after so many attempts: about a half to the whole of a doubling distance, so that
/// what failed together does not come back together.
fn distance(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(16);
    let whole = DISTANCE.saturating_mul(1 << doublings).min(DISTANCE_MAX);
    whole.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_double_up_to_an_hour() {
        for (attempts, seconds) in [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (i32::MAX, 3600)] {
            for _ in 0..50 {
                let distance = distance(attempts);
                let whole = Duration::from_secs(seconds);
                assert!(distance >= whole / 2 && distance <= whole, "{attempts}: {distance:?}");
            }
        }
    }
}
