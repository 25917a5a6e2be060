// Asks servers on 127.0.0.1, trusting the certificates of a file only.
// Usage: judge.js ROOTS; standard input has "PORT HOST" lines.
const fs = require('fs');
const net = require('net');
const tls = require('tls');

const ca = fs.readFileSync(process.argv[2]);
const asks = fs.readFileSync(0, 'utf8').trim().split('\n').map((line) => line.split(' '));

function ask(port, host) {
  return new Promise((resolve) => {
    const raw = net.connect(Number(port), '127.0.0.1');
    raw.once('error', (err) => { throw err; });
    raw.once('connect', () => {
      // An address is looked for in the certificate, but never sent as SNI.
      const conn = tls.connect({ socket: raw, host, servername: net.isIP(host) ? undefined : host, ca });
      const end = (answer) => { conn.destroy(); resolve(answer); };
      conn.once('secureConnect', () => conn.write('?'));
      conn.once('data', () => end('accepts'));
      conn.once('error', (err) => end(`refuses ${err.code} ${err.message}`.replace(/\s+/g, ' ')));
    });
  });
}

(async () => {
  for (const [port, host] of asks) {
    console.log(port, await ask(port, host));
  }
})();
