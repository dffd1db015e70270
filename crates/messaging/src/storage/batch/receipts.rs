//! The receipts of a batch: which messages came how much further, and who is told.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Receipt, ReceiptKind, Receipted, Which,
    sends::not_a_participant,
    statements::{Receivable, Statements, UpTo},
};
use crate::{
    clock::Timestamp,
    errors::Error,
    ids::MessageId,
    storage::{
        Result,
        log::{EventKind, NewEntry},
        rows::Participants,
    },
};

pub(super) async fn apply_receipts<C: Statements + Send>(
    connection: &mut C,
    receipts: &[Receipt],
    conversations: &HashMap<i64, Participants>,
    entries: &mut Vec<NewEntry>,
    now: Timestamp,
) -> Result<Vec<Result<Receipted, Error>>, sqlx::Error> {
    let mut outcomes: Vec<Result<Receipted, Error>> = receipts
        .iter()
        .map(|receipt| {
            let participants =
                conversations.get(&receipt.conversation_id.0).ok_or(Error::ConversationNotFound)?;
            participants.other(receipt.user_id).ok_or_else(not_a_participant)?;
            Ok(Receipted { message_ids: Vec::new(), participants: *participants, at: now })
        })
        .collect();
    // Delivered before read: a message that is read needs no delivery of its own any more.
    for kind in [ReceiptKind::Delivered, ReceiptKind::Read] {
        let mut moved = find_moved(connection, kind, receipts, &outcomes).await?;
        if moved.is_empty() {
            continue;
        }
        moved.sort_unstable_by_key(|row| (row.seq, row.id));
        // Two receipts of one batch may name the same message: it moves once.
        let mut seen = BTreeSet::new();
        moved.retain(|row| seen.insert(row.id));

        let mut marks: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
        for row in &moved {
            let Some(receipt) = usize::try_from(row.receipt).ok().and_then(|index| receipts.get(index))
            else {
                continue;
            };
            let (count, seq) = marks.entry((receipt.conversation_id.0, receipt.user_id.0)).or_insert((0, 0));
            *count += i64::from(row.counts);
            *seq = (*seq).max(row.seq);
            if let Some(Ok(outcome)) =
                usize::try_from(row.receipt).ok().and_then(|index| outcomes.get_mut(index))
            {
                outcome.message_ids.push(MessageId(row.id));
            }
        }
        match kind {
            ReceiptKind::Delivered => {
                let marks: Vec<_> = marks.into_iter().map(|((c, u), (_, seq))| (c, u, seq)).collect();
                connection.move_delivered(&marks, now).await?;
            }
            ReceiptKind::Read => {
                let ids: Vec<_> = moved.iter().map(|row| row.id).collect();
                let marks: Vec<_> =
                    marks.into_iter().map(|((c, u), (count, seq))| (c, u, count, seq)).collect();
                connection.move_read(&ids, &marks, now).await?;
            }
        }
        for (receipt, outcome) in receipts.iter().zip(&outcomes) {
            let Ok(outcome) = outcome else { continue };
            if receipt.kind == kind && !outcome.message_ids.is_empty() {
                entries.extend(receipt_entries(receipt, outcome));
            }
        }
    }
    Ok(outcomes)
}

pub(super) async fn find_moved<C: Statements + Send>(
    connection: &mut C,
    kind: ReceiptKind,
    receipts: &[Receipt],
    outcomes: &[Result<Receipted, Error>],
) -> Result<Vec<Receivable>, sqlx::Error> {
    let mut stretches = Vec::new();
    let mut named = Vec::new();
    for (index, (receipt, outcome)) in (0_i64..).zip(receipts.iter().zip(outcomes)) {
        if receipt.kind != kind || outcome.is_err() {
            continue;
        }
        let (conversation_id, user_id) = (receipt.conversation_id.0, receipt.user_id.0);
        let stretch = UpTo { index, conversation_id, user_id, seq: i64::MAX, id: i64::MAX };
        match &receipt.which {
            Which::All => stretches.push(stretch),
            Which::UpToSeq(seq) => stretches.push(UpTo { seq: *seq, ..stretch }),
            Which::UpToId(id) => stretches.push(UpTo { id: id.0, ..stretch }),
            Which::Ids(ids) => {
                named.extend(ids.iter().map(|id| (index, conversation_id, user_id, id.0)));
            }
        }
    }
    let mut moved = Vec::new();
    if !named.is_empty() {
        let found = connection.find_receivable_by_id(kind, &named).await?;
        match kind {
            ReceiptKind::Read => moved.extend(found),
            // Delivery is one mark a user: what came before a delivered message is delivered too.
            ReceiptKind::Delivered => stretches.extend(up_to_newest(receipts, &found)),
        }
    }
    if !stretches.is_empty() {
        moved.extend(connection.find_receivable(kind, &stretches).await?);
    }
    Ok(moved)
}

/// For each receipt, the stretch that ends with the newest of the messages found for it.
pub(super) fn up_to_newest(receipts: &[Receipt], found: &[Receivable]) -> Vec<UpTo> {
    let mut newest: BTreeMap<i64, i64> = BTreeMap::new();
    for row in found {
        let seq = newest.entry(row.receipt).or_default();
        *seq = (*seq).max(row.seq);
    }
    newest
        .into_iter()
        .filter_map(|(index, seq)| {
            let receipt = usize::try_from(index).ok().and_then(|index| receipts.get(index))?;
            Some(UpTo {
                index,
                conversation_id: receipt.conversation_id.0,
                user_id: receipt.user_id.0,
                seq,
                id: i64::MAX,
            })
        })
        .collect()
}

/// A receipt is told to both users.
pub(super) fn receipt_entries(receipt: &Receipt, outcome: &Receipted) -> [NewEntry; 2] {
    let (kind, at) = match receipt.kind {
        ReceiptKind::Delivered => (EventKind::MessageDelivered, "delivered_at"),
        ReceiptKind::Read => (EventKind::MessageRead, "read_at"),
    };
    let payload = serde_json::json!({
        "message_ids": outcome.message_ids,
        "user_id": receipt.user_id,
        at: outcome.at,
    })
    .to_string();
    [outcome.participants.user1_id, outcome.participants.user2_id].map(|user_id| NewEntry {
        user_id,
        kind,
        conversation_id: receipt.conversation_id,
        message_id: None,
        payload: Some(payload.clone()),
    })
}
