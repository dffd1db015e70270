//! Unread counters that say something else than the messages.

use messaging::{
    chat::{MarkRead, Reconciled},
    ids::ConversationId,
};
use serde_json::json;

use crate::{
    on_both_databases,
    support::TestDatabase,
    world::{ANNA, BEN, World, caller},
};

on_both_databases!(
    right_counters_are_left_alone,
    a_drifted_counter_is_repaired_and_told,
    what_was_skipped_by_a_drifted_counter_can_be_read_again,
    all_counters_are_looked_at_in_stretches,
);

/// Some of everything that moves a counter.
async fn busy(world: &World) -> ConversationId {
    let (id, first) = world.first_message("1").await;
    let second = world.say(ANNA, id, "2").await;
    world.say(ANNA, id, "3").await;
    world.say(BEN, id, "4").await;
    let read = json!({"conversation_id": id, "message_ids": [second]}).to_string();
    world.chat.mark_read(BEN, MarkRead::parse(&read).unwrap()).await.unwrap();
    world.chat.delete_message(&caller(ANNA), first).await.unwrap();
    world.chat.delete_conversation(&caller(ANNA), id).await.unwrap();
    world.say(BEN, id, "5").await;
    id
}

async fn right_counters_are_left_alone(database: TestDatabase) {
    let world = World::new(database).await;
    let id = busy(&world).await;
    let reconciled = world.chat.reconcile_unread(0).await.unwrap();
    assert_eq!(reconciled, Reconciled { checked: 2, repaired: 0, next: None });
    for (user, count) in [(ANNA, 1), (BEN, 1)] {
        assert_eq!(world.conversation(user, id).await.unwrap().unread_count, count);
    }
}

async fn a_drifted_counter_is_repaired_and_told(database: TestDatabase) {
    let world = World::new(database).await;
    busy(&world).await;
    let live = world.connect(BEN).await;
    world.database.execute("update conversation_participants set unread_count = 7 where user_id = 2").await;
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 7);
    let reconciled = world.chat.reconcile_unread(0).await.unwrap();
    assert_eq!(reconciled.repaired, 1);
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 1);
    assert_eq!(world.chat.unread_count(ANNA).await.unwrap(), 1);
    live.wait_for("unread_count", 1).await;
    assert_eq!(world.chat.reconcile_unread(0).await.unwrap().repaired, 0);
}

async fn what_was_skipped_by_a_drifted_counter_can_be_read_again(database: TestDatabase) {
    let world = World::new(database).await;
    let (id, _) = world.first_message("1").await;
    let second = world.say(ANNA, id, "2").await;
    // Too low by one: reading one of two seems to be all.
    world.database.execute("update conversation_participants set unread_count = 1 where user_id = 2").await;
    let read = json!({"conversation_id": id, "message_ids": [second]}).to_string();
    world.chat.mark_read(BEN, MarkRead::parse(&read).unwrap()).await.unwrap();
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 0);

    assert_eq!(world.chat.reconcile_unread(0).await.unwrap().repaired, 1);
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 1);
    let read = world.chat.mark_read(BEN, MarkRead::all(id)).await.unwrap();
    assert_eq!((read.count, read.unread_count), (1, 0));
    assert_eq!(world.chat.reconcile_unread(0).await.unwrap().repaired, 0);
}

async fn all_counters_are_looked_at_in_stretches(database: TestDatabase) {
    let world = World::new(database).await;
    for product in 1..=75 {
        world.send(ANNA, json!({"receiver_id": BEN, "product_id": product, "content": "x"})).await.unwrap();
    }
    world.database.execute("update conversation_participants set unread_count = 3 where user_id = 1").await;
    let first = world.chat.reconcile_unread(0).await.unwrap();
    assert_eq!(first.checked, 100);
    let second = world.chat.reconcile_unread(first.next.unwrap()).await.unwrap();
    assert_eq!((second.checked, second.next), (50, None));
    assert_eq!(first.repaired + second.repaired, 75);
    assert_eq!(world.chat.unread_count(ANNA).await.unwrap(), 0);
    assert_eq!(world.chat.unread_count(BEN).await.unwrap(), 75);
}
