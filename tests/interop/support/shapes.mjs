// The JSON shapes of contract section 1 and the events of 4.4, checked field by field as a typed client would.

import assert from 'node:assert/strict';

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

const rule = (name, test) => Object.assign(test, { ruleName: name });
export const id = rule('a positive integer', (value) => Number.isSafeInteger(value) && value > 0);
export const count = rule('a count', (value) => Number.isSafeInteger(value) && value >= 0);
export const string = rule('a string', (value) => typeof value === 'string');
export const words = rule('a string that is not empty', (value) => typeof value === 'string' && value.length > 0);
export const bool = rule('true or false', (value) => typeof value === 'boolean');
export const number = rule('a number', (value) => typeof value === 'number');
export const time = rule('a UTC time with milliseconds', (value) => typeof value === 'string' && TIME.test(value));
export const nothing = rule('null', (value) => value === null);
export const object = rule('an object', (value) => typeof value === 'object' && value !== null && !Array.isArray(value));
export const oneOf = (...values) => rule(`one of ${values}`, (value) => values.includes(value));
export const nullable = (shape) => ({ nullableShape: shape });
export const listOf = (shape) => ({ itemShape: shape });
const optional = (shape) => ({ optionalShape: shape });

/** Fails unless `value` has every field of `shape`, of its kind. Further fields are allowed, an e-mail never is. */
export function assertShape(value, shape, where = 'value') {
  check(value, shape, where);
  assertNoEmail(value, where);
}

function check(value, shape, where) {
  if (typeof shape === 'function') {
    assert.ok(shape(value), `${where} is ${JSON.stringify(value)}, not ${shape.ruleName}`);
  } else if (shape.nullableShape) {
    assert.notEqual(value, undefined, `${where} is missing`);
    if (value !== null) check(value, shape.nullableShape, where);
  } else if (shape.optionalShape) {
    if (value !== undefined) check(value, shape.optionalShape, where);
  } else if (shape.itemShape) {
    assert.ok(Array.isArray(value), `${where} is ${JSON.stringify(value)}, not a list`);
    value.forEach((item, at) => check(item, shape.itemShape, `${where}[${at}]`));
  } else {
    assert.ok(object(value), `${where} is ${JSON.stringify(value)}, not an object`);
    for (const [name, inner] of Object.entries(shape)) check(value[name], inner, `${where}.${name}`);
  }
}

function assertNoEmail(value, where) {
  assert.ok(!/"email"\s*:|@people\.example\.test/.test(JSON.stringify(value) ?? ''), `${where} gives away an e-mail address`);
}

export const MESSAGE = {
  id,
  conversation_id: id,
  seq: id,
  sender_id: id,
  sender: { id, name: words, avatar_url: nullable(string), avatar: nullable(string) },
  type: oneOf('text', 'image', 'file', 'system', 'offer'),
  content: string,
  file_url: nullable(string),
  attachment: nullable({ id, url: string, name: string, size: count, mime_type: string, thumbnail_url: nullable(string) }),
  metadata: nullable(object),
  offer: nullable(object),
  reply_to: nullable({ id, sender_id: id, type: string, content: string }),
  reactions: listOf({ emoji: words, count: id, user_ids: listOf(id) }),
  status: oneOf('sent', 'delivered', 'read'),
  is_read: bool,
  read_at: nullable(time),
  client_message_id: nullable(string),
  edited_at: nullable(time),
  deleted_at: nullable(time),
  created_at: time,
  updated_at: time,
};

export const CONVERSATION = {
  id,
  current_user_id: id,
  other_user: {
    id,
    // The app shows its first letter: an empty name is a crash there.
    name: words,
    avatar_url: nullable(string),
    avatar: nullable(string),
    status: oneOf('online', 'away', 'offline'),
    last_seen: nullable(time),
  },
  product: nullable({
    id,
    title: string,
    thumbnail_url: nullable(string),
    thumbnail: nullable(string),
    images: listOf(string),
    image_urls: listOf(string),
    price_per_day: nullable(number),
  }),
  last_message: nullable({
    id,
    content: string,
    type: words,
    sender_id: id,
    is_read: bool,
    status: oneOf('sent', 'delivered', 'read'),
    created_at: time,
  }),
  unread_count: count,
  last_message_at: nullable(time),
  is_archived: bool,
  is_muted: bool,
  is_blocked: bool,
  created_at: time,
  updated_at: time,
};

export const PAGE_META = { timestamp: time, current_page: id, per_page: id, total: count, total_pages: count, has_more: bool };

export const ERROR_BODY = {
  success: oneOf(false),
  error: { code: words, message: words, details: { retryable: bool } },
  message: words,
  meta: { timestamp: time, request_id: words },
};

export const REFUSED_ACK = { success: oneOf(false), error: { code: words, message: words, retryable: bool } };

/** Server → client (contract 4.4). */
export const EVENTS = {
  authenticated: { user_id: id, user: { id, name: words } },
  message_received: { message: MESSAGE, conversation_id: id, event_seq: id },
  message_sent: { message: MESSAGE, message_id: id, client_message_id: nullable(string) },
  message_delivered: { message_ids: listOf(id), user_id: id, conversation_id: id, delivered_at: time, event_seq: id },
  message_read: { message_ids: listOf(id), user_id: id, conversation_id: id, read_at: time, event_seq: id },
  user_typing: { user_id: id, conversation_id: id, is_typing: bool },
  user_presence: { user_id: id, status: oneOf('online', 'away', 'offline'), last_seen: nullable(time) },
  conversation_updated: { conversation: CONVERSATION },
  unread_count: { unread_count: count },
  error: { message: words, code: words, event: optional(string) },
};

/** Fails unless every event that the connection got has the shape that the contract gives it. */
export function assertEventShapes(inbox) {
  for (const { event, data } of inbox.events) {
    assert.notEqual(event, '(malformed)', `not one object as its data: ${JSON.stringify(data)}`);
    if (!EVENTS[event]) continue;
    // One's own profile comes back to oneself: the address in it is no disclosure.
    if (event === 'authenticated') check(data, EVENTS[event], event);
    else assertShape(data, EVENTS[event], event);
  }
}
