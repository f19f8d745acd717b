// The terminal of a pod, on the customer's page.
import { $, element } from '/shared.js';

let terminal;

function script(path) {
  return new Promise((resolve, reject) => {
    const loaded = element('script', '', { src: path });
    loaded.addEventListener('load', resolve);
    loaded.addEventListener('error', () => reject(new Error('This build has no web terminal; use ssh.')));
    document.head.append(loaded);
  });
}

/** Opens a terminal in this pod, of the customer with this bearer token, in place of the one that is open. */
export async function openTerminal(pod, key) {
  if (!window.Terminal) {
    document.head.append(element('link', '', { rel: 'stylesheet', href: '/lib/xterm.css' }));
    await script('/lib/xterm.js');
    await script('/lib/addon-fit.js');
  }
  terminal?.close();
  $('shell').hidden = false;
  $('screen').replaceChildren();
  $('shell-title').textContent = `Terminal: ${pod}`;
  const screen = new window.Terminal({ cursorBlink: true, screenReaderMode: true, fontSize: 14 });
  const fit = new window.FitAddon.FitAddon();
  screen.loadAddon(fit);
  screen.open($('screen'));
  fit.fit();
  const url = new URL(`/pods/${encodeURIComponent(pod)}/terminal`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  const state = (text) => { $('shell-state').textContent = text; };
  const size = () => ({ columns: screen.cols, rows: screen.rows });
  const encoder = new TextEncoder();
  socket.addEventListener('open', () => { socket.send(JSON.stringify({ bearer_token: key, ...size() })); state('connected'); });
  socket.addEventListener('message', (event) => screen.write(new Uint8Array(event.data)));
  socket.addEventListener('close', (event) => state(event.reason || 'closed'));
  screen.onData((text) => {
    const bytes = encoder.encode(text);
    // The service bounds the size of a message.
    for (let at = 0; at < bytes.length && socket.readyState === 1; at += 32768) socket.send(bytes.slice(at, at + 32768));
  });
  screen.onResize(() => { if (socket.readyState === 1) socket.send(JSON.stringify(size())); });
  const onResize = () => fit.fit();
  addEventListener('resize', onResize);
  terminal = { close: () => { removeEventListener('resize', onResize); socket.close(); screen.dispose(); } };
  screen.focus();
  $('shell').scrollIntoView({ block: 'nearest' });
}

$('close-terminal').addEventListener('click', () => { terminal?.close(); terminal = undefined; $('shell').hidden = true; });
