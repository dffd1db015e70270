// docs/integrate-flutter.md: the frames on that page are what really goes over the wire, in their order.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';

import { WebSocket } from 'ws';

import { withWorld } from './support/world.mjs';

const GUIDE = readFileSync(new URL('../../docs/integrate-flutter.md', import.meta.url), 'utf8');

/** `{who: 'app' | 'service', frame}`, as they stand on the page. */
function framesOfTheGuide() {
  const blocks = GUIDE.matchAll(/<!-- (app|service) -->\n```json\n([^]*?)\n```/g);
  return [...blocks].map(([, who, text]) => ({ who, frame: JSON.parse(text) }));
}

/** Every field of the page is on the wire, with a value of its type. */
function assertHasFields(actual, shown, where) {
  for (const [name, value] of Object.entries(shown)) {
    assert.ok(name in actual, `${where}.${name} is not in ${JSON.stringify(actual)}`);
    assert.equal(typeof actual[name], typeof value, `${where}.${name}`);
    if (value && typeof value === 'object') assertHasFields(actual[name], value, `${where}.${name}`);
  }
}

withWorld('the guide for Flutter', {}, (world) => {
  it('shows frames that the service understands and sends', async () => {
    const { renter, conversationId, first } = await world.talkingPair();
    const frames = framesOfTheGuide();
    const asked = frames.filter(({ who }) => who === 'app');
    assert.ok(asked.length >= 7, 'the page has its frames');

    const socket = new WebSocket(`${world.service.wsUrl}/ws?token=${encodeURIComponent(renter.token)}`);
    const heard = [];
    socket.on('message', (bytes) => heard.push(JSON.parse(bytes)));
    await once(socket, 'open');
    const wait = async (holds, what) => {
      const deadline = Date.now() + 15_000;
      for (;;) {
        const found = heard.find(holds);
        if (found) return found;
        assert.ok(Date.now() < deadline, `${what} did not come: ${JSON.stringify(heard)}`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    };
    const values = { TOKEN: renter.token, CONVERSATION: conversationId, MESSAGE: first.id };
    for (const { who, frame } of frames) {
      if (who === 'service') {
        const ofThis = ({ event, data }) => event === frame.event && (!frame.data.client_message_id || data.client_message_id === frame.data.client_message_id);
        const real = await wait(ofThis, frame.event);
        assertHasFields(real.data, frame.data, frame.event);
        continue;
      }
      const filled = JSON.stringify(frame).replace(/"(TOKEN|CONVERSATION|MESSAGE)"/g, (_, name) => JSON.stringify(values[name]));
      socket.send(filled);
      const ack = await wait(({ event, ref }) => event === 'ack' && ref === frame.ref, `the answer to ${frame.event}`);
      assert.equal(ack.data.success, true, `${filled}: ${JSON.stringify(ack)}`);
    }
    const sent = await wait(({ event }) => event === 'message_received', 'message_received');
    assert.equal(sent.data.message.content, 'Friday at six?');
    assert.equal(typeof sent.data.event_seq, 'number');
    socket.close();
  });

  it('names events that exist', async () => {
    const asyncapi = await (await fetch(`${world.service.url}/asyncapi.json`)).text();
    const listed = /static const events = \[([^]*?)\];/.exec(GUIDE)[1];
    const names = [...listed.matchAll(/'(\w+)'/g)].map(([, name]) => name);
    assert.ok(names.length > 10);
    for (const name of names) assert.ok(asyncapi.includes(`"${name}"`), `${name} is no event`);
  });
});
