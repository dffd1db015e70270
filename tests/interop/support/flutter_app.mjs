// The Flutter app, as strict as Dart's casts: its REST services, which know one status code for each call and throw
// what they cannot cast, and its live service, which sends its first events before the server said a word.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { WebSocket } from 'ws';

import { Inbox } from './inbox.mjs';
import { assertShape, CONVERSATION, count, listOf, MESSAGE } from './shapes.mjs';

export class ApiError extends Error {
  /** What the app makes of an error body: `message` must be a string and `errors` a map of lists of strings. */
  constructor(body, statusCode) {
    assert.equal(typeof body.message, 'string', `the app finds no message in ${JSON.stringify(body)}`);
    super(body.message);
    this.statusCode = statusCode;
    this.errors = body.errors ?? null;
    for (const sentences of Object.values(this.errors ?? {})) {
      assert.ok(Array.isArray(sentences) && sentences.every((sentence) => typeof sentence === 'string'));
    }
  }

  get firstError() {
    return Object.values(this.errors ?? {})[0]?.[0] ?? this.message;
  }
}

class RestService {
  constructor(baseUrl, token) {
    this.baseUrl = baseUrl;
    this.token = token;
  }

  /** Dart's `http` writes the charset into the content type of every POST, with or without a body. */
  async call(method, path, expected, body) {
    const response = await fetch(`${this.baseUrl}${path}`, {
      method,
      headers: {
        Accept: 'application/json',
        'Content-Type': method === 'GET' ? 'application/json' : 'application/json; charset=utf-8',
        Authorization: `Bearer ${this.token}`,
        'User-Agent': 'Dart/3.5 (dart:io)',
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const decoded = JSON.parse(await response.text());
    if (response.status !== expected) throw new ApiError(decoded, response.status);
    return decoded;
  }
}

export class ConversationService extends RestService {
  async getConversations() {
    const { data } = await this.call('GET', '/api/conversations', 200);
    assertShape(data, listOf(CONVERSATION), 'the list');
    return data;
  }

  async getConversation(conversationId) {
    const { data } = await this.call('GET', `/api/conversations/${conversationId}`, 200);
    assertShape(data, CONVERSATION, 'the conversation');
    return data;
  }

  async getConversationMessages(conversationId) {
    const { data } = await this.call('GET', `/api/conversations/${conversationId}/messages`, 200);
    assertShape(data, listOf(MESSAGE), 'the messages');
    return data;
  }

  async markConversationAsRead(conversationId) {
    await this.call('POST', `/api/conversations/${conversationId}/read`, 200);
  }

  async getUnreadCount() {
    const answer = await this.call('GET', '/api/conversations/unread/count', 200);
    assertShape(answer.unread_count, count, 'unread_count at the top level');
    return answer.unread_count;
  }
}

export class MessageService extends RestService {
  async sendMessage({ conversationId, receiverId, productId, content }) {
    const body = conversationId
      ? { content, conversation_id: conversationId }
      : { content, receiver_id: receiverId, product_id: productId };
    const answer = await this.call('POST', '/api/messages', 201, body);
    assertShape(answer.data, MESSAGE, 'the message sent');
    return answer.data;
  }
}

/** `WebSocketChannel.connect(Uri.parse('ws://host:3001?token=…'))`, with `authenticate` right behind the handshake. */
export class WebSocketService {
  inbox = new Inbox();

  constructor(wsUrl, token) {
    this.url = `${wsUrl}?token=${token}`;
    this.token = token;
  }

  async connect() {
    this.socket = new WebSocket(this.url);
    this.socket.on('message', (bytes, binary) => {
      assert.equal(binary, false, 'the app reads text frames');
      const frame = JSON.parse(bytes.toString());
      const event = frame.event ?? frame.type;
      const data = frame.data ?? frame;
      assert.equal(typeof event, 'string');
      // onError?.call(payload['message']) takes a String.
      if (event === 'error') assert.equal(typeof data.message, 'string');
      this.inbox.push(event, data);
    });
    this.closed = once(this.socket, 'close').then(([code]) => code);
    await once(this.socket, 'open');
    this.send('authenticate', { token: this.token });
  }

  joinConversation(conversationId) {
    this.send('join_conversation', { conversation_id: conversationId });
  }

  sendMessage(conversationId, content) {
    this.send('send_message', { conversation_id: conversationId, content, type: 'text' });
  }

  sendTyping(conversationId, isTyping) {
    this.send('typing', { conversation_id: conversationId, is_typing: isTyping });
  }

  markRead(conversationId, messageIds) {
    this.send('mark_read', { conversation_id: conversationId, message_ids: messageIds });
  }

  updatePresence(status) {
    this.send('presence_update', { status });
  }

  send(event, data) {
    this.socket.send(JSON.stringify({ event, data }));
  }

  disconnect() {
    this.socket.close();
  }
}
