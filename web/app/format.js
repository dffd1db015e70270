// How times, prices and previews read. Pure functions, no page, no state.

const TIME = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const SHORT_DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const PRICE = new Intl.NumberFormat("en", { style: "currency", currency: "EUR", maximumFractionDigits: 2, trailingZeroDisplay: "stripIfInteger" });
const DAY_MS = 86_400_000;

/** 14:05 */
export function clockTime(iso) {
  return TIME.format(new Date(iso));
}

/** Today, Yesterday, a weekday within the week, else the date. */
export function dayLabel(iso, now = new Date()) {
  const days = daysBetween(new Date(iso), now);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return days < 7 ? WEEKDAY.format(new Date(iso)) : DATE.format(new Date(iso));
}

/** For the list: the time today, else the day. */
export function listTime(iso, now = new Date()) {
  if (!iso) return "";
  const days = daysBetween(new Date(iso), now);
  if (days <= 0) return clockTime(iso);
  if (days === 1) return "Yesterday";
  return days < 7 ? WEEKDAY.format(new Date(iso)).slice(0, 3) : SHORT_DATE.format(new Date(iso));
}

/** Whether two instants fall on the same calendar day here. */
export function sameDay(one, other) {
  return new Date(one).toDateString() === new Date(other).toDateString();
}

/** online · away · last seen 14:05; empty where nothing is known. */
export function presenceLine(status, lastSeen, now = new Date()) {
  if (status === "online" || status === "away") return status;
  if (!lastSeen) return "";
  const seconds = (now - new Date(lastSeen)) / 1000;
  if (seconds < 60) return "last seen just now";
  if (seconds < 3600) return `last seen ${Math.floor(seconds / 60)} min ago`;
  const days = daysBetween(new Date(lastSeen), now);
  if (days <= 0) return `last seen at ${clockTime(lastSeen)}`;
  return days === 1 ? `last seen yesterday at ${clockTime(lastSeen)}` : `last seen ${SHORT_DATE.format(new Date(lastSeen))}`;
}

/** €12.50 */
export function price(amount) {
  return typeof amount === "number" ? PRICE.format(amount) : "";
}

/** One line that stands for a message, in the list and in a quote. */
export function preview(message) {
  if (!message) return "";
  if (message.deleted_at) return "Message deleted";
  if (message.content) return message.content.replace(/\s+/g, " ");
  return { image: "📷 Picture", file: "📎 File" }[message.type] ?? "Message deleted";
}

/** 9 as it is, more as 99+. */
export function count(number) {
  return number > 99 ? "99+" : String(number);
}

/** Whether a text is up to three emoji and nothing else: such a message is shown large. */
export function isFewEmoji(text) {
  if (!text || text.length > 40 || !/^[\p{Extended_Pictographic}\p{Emoji_Component}\s]+$/u.test(text)) return false;
  if (!/\p{Extended_Pictographic}/u.test(text) || !Intl.Segmenter) return false;
  const graphemes = [...new Intl.Segmenter().segment(text.replace(/\s/g, ""))];
  return graphemes.length <= 3;
}

/** A text cut into plain parts and web addresses: `[{text, href?}]`. Only http(s) is an address. */
export function linked(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(/\bhttps?:\/\/[^\s<>"]+/gi)) {
    // A full stop or a closing bracket after an address belongs to the sentence.
    const href = match[0].replace(/[.,;:!?)\]}'…]+$/, "");
    if (match.index > at) parts.push({ text: text.slice(at, match.index) });
    parts.push({ text: href, href });
    at = match.index + href.length;
  }
  if (at < text.length) parts.push({ text: text.slice(at) });
  return parts;
}

function daysBetween(earlier, later) {
  const midnight = (date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  return Math.round((midnight(later) - midnight(earlier)) / DAY_MS);
}
