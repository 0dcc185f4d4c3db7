// Asking the server that gave the page for its data: only where the page says so, and only there.

const EVERY = 2000;

export interface Answer {
  data: unknown;
  tag: string | null;
}

/** The address beside the page, with the token that the page itself was opened with. */
export function address(relative: string): string {
  const url = new URL(relative, location.href);
  const token = new URLSearchParams(location.search).get("token");
  if (token !== null && !url.searchParams.has("token")) url.searchParams.set("token", token);
  if (url.origin !== location.origin) throw new Error("The page names another server for its data.");
  return url.href;
}

/** The JSON at an address; null: it has not changed since `tag`. Errors are sentences for the reader. */
export async function ask(url: string, tag: string | null): Promise<Answer | null> {
  const headers: Record<string, string> = tag === null ? {} : { "If-None-Match": tag };
  const reply = await fetch(url, { headers, cache: "no-store", credentials: "same-origin" });
  if (reply.status === 304) return null;
  if (!reply.ok) throw new Error(`The server answered ${reply.status}.`);
  return { data: await reply.json(), tag: reply.headers.get("ETag") };
}

export interface Feed {
  url: string;
  draw: (data: unknown) => void;
  again: (data: unknown) => boolean; // whether it is still being written
  trouble: (text: string | null) => void;
}

/** Draw what is there, and ask again every two seconds while it is being written; a lost server is waited for. */
export async function follow(feed: Feed): Promise<void> {
  let tag: string | null = null;
  let running = true;
  while (running) {
    try {
      if (!document.hidden || tag === null) {
        const answer = await ask(feed.url, tag);
        feed.trouble(null);
        if (answer) {
          tag = answer.tag;
          running = feed.again(answer.data);
          feed.draw(answer.data);
        }
      }
    } catch (error) {
      feed.trouble(`${error instanceof Error ? error.message : String(error)} Trying again.`);
    }
    if (running) await new Promise((wake) => setTimeout(wake, EVERY));
  }
}
