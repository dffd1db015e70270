//! The sends of a batch: who may send what where, and what was sent before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Batch, NewMessage, Sent, Target,
    statements::{Bumps, InsertRow, Quoted, Statements, UnsentAttachment},
};
use crate::{
    clock::Timestamp,
    errors::Error,
    ids::{AttachmentId, ConversationId, MessageId, UserId},
    storage::{
        Result,
        rows::{AttachmentColumns, MessageRow, MessageType, Participants, ReplyRow},
    },
};

/// Sends of this batch that repeat an earlier one of it: `(index, index of the first)`.
pub(super) fn find_twins(
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
) -> Vec<(usize, usize)> {
    let mut firsts: HashMap<(UserId, &str), usize> = HashMap::new();
    let mut twins = Vec::new();
    for (index, send) in sends.iter().enumerate() {
        let Some(client_message_id) = send.client_message_id.as_deref() else { continue };
        match firsts.entry((send.sender_id, client_message_id)) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(index);
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                if sends[*first.get()].fingerprint == send.fingerprint {
                    // Decided for now so that nothing else touches it; the first one's outcome replaces it.
                    outcomes[index] = Some(Err(Error::unavailable()));
                    twins.push((index, *first.get()));
                } else {
                    outcomes[index] = Some(Err(conflicting_client_message_id()));
                }
            }
        }
    }
    twins
}

pub(super) fn conflicting_client_message_id() -> Error {
    Error::Conflict("This client_message_id was already used for another message.".into())
}

pub(super) async fn settle_replays<C: Statements + Send>(
    connection: &mut C,
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
) -> Result<(), sqlx::Error> {
    let keys: Vec<_> = sends
        .iter()
        .filter_map(|send| send.client_message_id.as_deref().map(|id| (send.sender_id.0, id)))
        .collect();
    let found: HashMap<(i64, String), (MessageId, Option<i64>)> = connection
        .find_replays(&keys)
        .await?
        .into_iter()
        .map(|row| ((row.sender_id, row.client_message_id), (row.id, row.fingerprint)))
        .collect();
    for (send, outcome) in sends.iter().zip(outcomes) {
        let Some(client_message_id) = &send.client_message_id else { continue };
        if outcome.is_some() {
            continue;
        }
        if let Some((id, fingerprint)) = found.get(&(send.sender_id.0, client_message_id.clone())) {
            *outcome = Some(if *fingerprint == Some(send.fingerprint) {
                Ok(Sent::Before(*id))
            } else {
                Err(conflicting_client_message_id())
            });
        }
    }
    Ok(())
}

/// The conversation of each send, made where it is missing; and those that may have been made now.
pub(super) async fn resolve_targets<C: Statements + Send>(
    connection: &mut C,
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
    now: Timestamp,
) -> Result<(Vec<Option<i64>>, BTreeSet<i64>), sqlx::Error> {
    let mut resolved: Vec<Option<i64>> = sends
        .iter()
        .map(|send| match send.target {
            Target::Conversation(id) => Some(id.0),
            Target::User { .. } => None,
        })
        .collect();
    let mut created = BTreeSet::new();
    let mut pairs = Vec::new();
    for (send, outcome) in sends.iter().zip(outcomes.iter()) {
        if let (Target::User { receiver_id, .. }, None) = (send.target, outcome) {
            pairs.push((send.sender_id.0, receiver_id.0));
            pairs.push((receiver_id.0, send.sender_id.0));
        }
    }
    if pairs.is_empty() {
        return Ok((resolved, created));
    }
    let blocks: BTreeSet<(i64, i64)> = connection.find_blocks(&pairs).await?.into_iter().collect();
    let mut wanted = BTreeSet::new();
    for (send, outcome) in sends.iter().zip(outcomes.iter_mut()) {
        let (Target::User { receiver_id, product_id }, None) = (send.target, &outcome) else { continue };
        let (sender, receiver) = (send.sender_id.0, receiver_id.0);
        let passes = passes_blocks(send);
        if blocks.contains(&(sender, receiver)) && !passes {
            *outcome = Some(Err(Error::Blocked { by_caller: true }));
        } else if blocks.contains(&(receiver, sender)) && !passes {
            *outcome = Some(Err(Error::Blocked { by_caller: false }));
        } else {
            wanted.insert((sender.min(receiver), sender.max(receiver), product_id.map(|id| id.0)));
        }
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    if wanted.is_empty() {
        return Ok((resolved, created));
    }
    let found: HashMap<(i64, i64, Option<i64>), i64> = connection
        .find_or_create_conversations(&wanted, now)
        .await?
        .into_iter()
        .map(|row| ((row.user1_id, row.user2_id, row.product_id), row.id))
        .collect();
    created.extend(found.values().copied());
    for ((send, outcome), slot) in sends.iter().zip(outcomes.iter()).zip(&mut resolved) {
        if let (Target::User { receiver_id, product_id }, None) = (send.target, outcome) {
            let (sender, receiver) = (send.sender_id.0, receiver_id.0);
            let key = (sender.min(receiver), sender.max(receiver), product_id.map(|id| id.0));
            *slot = found.get(&key).copied();
        }
    }
    Ok((resolved, created))
}

pub(super) fn may_send(send: &NewMessage, participants: Option<&Participants>) -> Result<(), Error> {
    let participants = participants.ok_or(Error::ConversationNotFound)?;
    if participants.other(send.sender_id).is_none() {
        return Err(not_a_participant());
    }
    if participants.is_blocked() && !passes_blocks(send) {
        return Err(Error::Blocked { by_caller: participants.blocks(send.sender_id) });
    }
    Ok(())
}

/// A notice of the marketplace is nobody's words.
fn passes_blocks(send: &NewMessage) -> bool {
    send.kind == MessageType::System
}

/// The refusal of somebody else's conversation.
pub fn not_a_participant() -> Error {
    Error::Forbidden("You are not a participant of this conversation.".into())
}

/// What a send refers to.
#[derive(Debug, Default)]
pub(super) struct References {
    reply: ReplyRow,
    attachment: AttachmentColumns,
}

/// Attachments first: a refused one must not leave an empty conversation behind.
pub(super) async fn check_attachments<C: Statements + Send>(
    connection: &mut C,
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
    references: &mut HashMap<usize, References>,
) -> Result<(), sqlx::Error> {
    let wanted: Vec<i64> = sends.iter().filter_map(|send| send.attachment_id).map(|id| id.0).collect();
    if !wanted.is_empty() {
        let mut found: HashMap<AttachmentId, UnsentAttachment> = connection
            .find_unsent_attachments(&wanted)
            .await?
            .into_iter()
            .filter_map(|row| row.columns.attachment_id.map(|id| (id, row)))
            .collect();
        for (index, send) in sends.iter().enumerate() {
            let Some(id) = send.attachment_id.filter(|_| outcomes[index].is_none()) else { continue };
            // Taken out: one upload belongs to one message.
            let attachment = found.remove(&id).filter(|found| found.uploader_id == send.sender_id);
            let refusal = match attachment {
                None => Some("The selected attachment_id is not an unsent upload of yours."),
                Some(attachment)
                    if send.kind == MessageType::Image && !attachment.mime_type.starts_with("image/") =>
                {
                    Some("The selected attachment_id is not an image.")
                }
                Some(attachment) => {
                    references.entry(index).or_default().attachment = attachment.columns;
                    None
                }
            };
            if let Some(sentence) = refusal {
                outcomes[index] = Some(Err(Error::field("attachment_id", sentence)));
            }
        }
    }
    Ok(())
}

pub(super) async fn check_quoted<C: Statements + Send>(
    connection: &mut C,
    sends: &[NewMessage],
    outcomes: &mut [Option<Result<Sent, Error>>],
    conversation_ids: &[Option<i64>],
    references: &mut HashMap<usize, References>,
) -> Result<(), sqlx::Error> {
    let quoted: Vec<i64> = sends.iter().filter_map(|send| send.reply_to_id).map(|id| id.0).collect();
    if !quoted.is_empty() {
        let found: HashMap<MessageId, Quoted> =
            connection.find_quoted(&quoted).await?.into_iter().map(|row| (row.id, row)).collect();
        for (index, send) in sends.iter().enumerate() {
            let Some(reply_to_id) = send.reply_to_id.filter(|_| outcomes[index].is_none()) else { continue };
            match found.get(&reply_to_id) {
                Some(quoted) if Some(quoted.conversation_id) == conversation_ids[index] => {
                    references.entry(index).or_default().reply = ReplyRow {
                        reply_id: Some(reply_to_id),
                        reply_sender_id: Some(quoted.sender_id),
                        reply_type: Some(quoted.kind.clone()),
                        reply_content: Some(quoted.content.clone()),
                    };
                }
                _ => {
                    outcomes[index] = Some(Err(Error::field(
                        "reply_to_id",
                        "The selected reply_to_id is not a message of this conversation.",
                    )));
                }
            }
        }
    }

    Ok(())
}

/// Stores the sends that are not decided yet: index → its message's id and place.
/// `None` if one of them turns out to be stored already.
pub(super) async fn store_messages<C: Statements + Send>(
    connection: &mut C,
    batch: &Batch,
    outcomes: &[Option<Result<Sent, Error>>],
    conversation_ids: &[Option<i64>],
    conversations: &HashMap<i64, Participants>,
    now: Timestamp,
) -> Result<Option<BTreeMap<usize, (MessageId, i64)>>, sqlx::Error> {
    let mut rows = Vec::new();
    let mut places = HashMap::new();
    let mut bumps = Bumps::default();
    for (index, send) in batch.sends.iter().enumerate() {
        let (None, Some(conversation_id)) = (&outcomes[index], conversation_ids[index]) else { continue };
        let Some(participants) = conversations.get(&conversation_id) else { continue };
        let Some(recipient) = participants.other(send.sender_id) else { continue };
        let last_seq = bumps.last_seqs.entry(conversation_id).or_insert(participants.last_seq);
        *last_seq += 1;
        *bumps.unread.entry((conversation_id, recipient.0)).or_default() += 1;
        bumps.unread.entry((conversation_id, send.sender_id.0)).or_default();
        places.insert((conversation_id, *last_seq), index);
        rows.push(InsertRow { conversation_id, seq: *last_seq, message: send });
    }
    if rows.is_empty() {
        return Ok(Some(BTreeMap::new()));
    }
    let stored = connection.insert_messages(&rows, &bumps, now).await?;
    if stored.len() < rows.len() {
        return Ok(None);
    }
    Ok(Some(
        stored
            .into_iter()
            .filter_map(|(conversation, seq, id)| {
                places.get(&(conversation, seq)).map(|index| (*index, (MessageId(id), seq)))
            })
            .collect(),
    ))
}

pub(super) fn message_row(
    send: &NewMessage,
    conversation_id: ConversationId,
    id: MessageId,
    seq: i64,
    now: Timestamp,
    references: Option<&References>,
) -> MessageRow {
    MessageRow {
        id,
        conversation_id,
        seq,
        sender_id: send.sender_id,
        kind: send.kind,
        content: send.content.clone(),
        file_url: send.file_url.clone(),
        metadata: send.metadata.clone(),
        offer: send.offer.clone(),
        client_message_id: send.client_message_id.clone(),
        fingerprint: Some(send.fingerprint),
        is_read: false,
        read_at: None,
        is_delivered: false,
        edited_at: None,
        created_at: now,
        updated_at: now,
        deleted_at: None,
        reactions: None,
        reply: references.map(|references| references.reply.clone()).unwrap_or_default(),
        attachment: references.map(|references| references.attachment.clone()).unwrap_or_default(),
    }
}
