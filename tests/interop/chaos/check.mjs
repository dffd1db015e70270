// The checker: compares what every client was told with what the service keeps, once all is quiet.

/** Whatever contradicts the contract, as sentences. */
export async function check(people, node) {
  const problems = [];
  const complainer = (person) => (problem) => problems.push(`user ${person.user.id}: ${problem}`);
  // All logs before any history: reading a history may mark messages as delivered, which makes new events.
  for (const person of people) {
    const complain = complainer(person);
    for (const message of person.sent) {
      if (!message.confirmed) complain(`${message.clientMessageId} was never confirmed`);
    }
    const log = await wholeLog(person, node);
    checkLog(person.heard.slice(0, log.length), log, complain);
  }
  for (const person of people) await checkConversations(person, people, node, complainer(person));
  for (const person of people) person.violations.forEach(complainer(person));
  return problems;
}

function checkLog(heardEvents, log, complain) {
  if (log.length !== heardEvents.length) complain(`heard ${heardEvents.length} events, the log has ${log.length}`);
  log.forEach((entry, index) => {
    const heard = heardEvents[index];
    if (entry.event_seq !== index + 1) complain(`the log has place ${entry.event_seq} after ${index}`);
    if (!heard || heard.event !== entry.event || heard.data.event_seq !== entry.event_seq) {
      complain(`place ${entry.event_seq} is ${entry.event}, heard was ${heard?.event} ${heard?.data.event_seq}`);
    }
  });
}

async function checkConversations(person, people, node, complain) {
  let unread = 0;
  const conversations = (await get(node, person, '/api/conversations?limit=200')).data;
  for (const conversation of conversations) {
    const messages = await history(person, node, conversation.id);
    const seqs = messages.map((message) => message.seq);
    if (seqs.some((seq, index) => seq !== index + 1)) complain(`conversation ${conversation.id} has places ${seqs}`);
    // Everybody hears a conversation in its order, each message once.
    const heard = person.heard.filter(({ event, data }) => event === 'message_received' && data.conversation_id === conversation.id);
    const ids = heard.map(({ data }) => data.message.id);
    if (ids.join() !== messages.map((message) => message.id).join()) {
      complain(`conversation ${conversation.id}: heard messages ${ids}, the history has ${messages.map((message) => message.id)}`);
    }
    const others = messages.filter((message) => message.sender_id !== person.user.id && !message.is_read).length;
    if (others !== conversation.unread_count) complain(`${conversation.unread_count} unread in ${conversation.id}, recounted ${others}`);
    unread += others;

    const sender = people.find(({ user }) => user.id === conversation.other_user.id);
    for (const one of [person, sender]) {
      for (const message of one.sent.filter(({ to, confirmed }) => confirmed?.conversation_id === conversation.id && to)) {
        const kept = messages.filter((row) => row.sender_id === one.user.id && row.client_message_id === message.clientMessageId);
        const [row] = kept;
        if (kept.length !== 1) complain(`${message.clientMessageId} was confirmed and is there ${kept.length} times`);
        else if (row.id !== message.confirmed.id || row.seq !== message.confirmed.seq || row.content !== message.content) {
          complain(`${message.clientMessageId} was confirmed as another message than is kept`);
        }
      }
    }
  }
  const badge = (await get(node, person, '/api/conversations/unread/count')).unread_count;
  if (badge !== unread) complain(`the badge says ${badge}, recounted ${unread}`);
}

async function history(person, node, conversation) {
  const messages = [];
  for (let after = 0; ; ) {
    const page = (await get(node, person, `/api/conversations/${conversation}/messages?after=${after}&limit=100`)).data;
    if (page.length === 0) return messages;
    messages.push(...page);
    after = page.at(-1).seq;
  }
}

async function wholeLog(person, node) {
  const events = [];
  for (let since = 0; ; ) {
    const { data } = await get(node, person, `/api/sync?since=${since}&limit=500`);
    events.push(...data.events);
    if (!data.has_more) return events;
    since = data.events.at(-1).event_seq;
  }
}

export async function get(node, person, path) {
  const response = await fetch(`${node.url}${path}`, {
    headers: { authorization: `Bearer ${person.user.token}` },
    signal: AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response.json();
}
