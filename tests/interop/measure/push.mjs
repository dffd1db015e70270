// For `scripts/bench push`: a stand-in for Firebase that takes every push, or hangs; and devices for users.
//   node push.mjs serve PORT ACCOUNT [hang]    writes the service account to ACCOUNT, then serves
//   node push.mjs register URL COUNT           a device for each of the first users of the load generator
//   node push.mjs percentiles URL              of messaging_notification_seconds: p50 and p99 in milliseconds, count
import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [command, ...words] = process.argv.slice(2);

function serve(port, account, mode) {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const base = `http://127.0.0.1:${port}`;
  writeFileSync(account, JSON.stringify({
    type: 'service_account', project_id: 'bench', client_email: 'bench@example.test', token_uri: `${base}/token`,
    private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
  }), { mode: 0o600 });
  const server = createServer((request, response) => {
    request.resume().on('end', () => {
      const answer = (body) => response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
      if (request.url === '/token') answer({ access_token: 'bench', expires_in: 3600, token_type: 'Bearer' });
      else if (mode !== 'hang') answer({ name: 'projects/bench/messages/1' });
    });
  });
  server.listen(Number(port), '127.0.0.1');
}

async function register(url, count) {
  for (let user = 1; user <= Number(count); user++) {
    const answer = await fetch(`${url}/api/devices`, {
      method: 'POST',
      headers: { authorization: `Bearer user-${user}`, 'content-type': 'application/json' },
      body: JSON.stringify({ token: `device-of-${user}`, device_type: 'android' }),
    });
    if (!answer.ok) throw new Error(`a device was answered ${answer.status}`);
  }
}

// The upper end of the bucket that has it, so that the figure is not too good.
async function percentiles(url) {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split('\n');
  const buckets = lines
    .map((line) => /^messaging_notification_seconds_bucket\{le="([^"]+)"\} (\d+)/.exec(line))
    .filter(Boolean)
    .map(([, end, count]) => ({ end: end === '+Inf' ? Infinity : Number(end), count: Number(count) }));
  const total = buckets.at(-1)?.count ?? 0;
  const at = (share) => buckets.find(({ count }) => count >= share * total)?.end * 1000;
  console.log(`p50 ${at(0.5)}\np99 ${at(0.99)}\ncount ${total}`);
}

await { serve, register, percentiles }[command](...words);
