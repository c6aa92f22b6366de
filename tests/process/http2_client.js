// node's own http2 client: 20 streams at a time, a body each, trailers of gRPC's shape. Prints what it saw as JSON.
// node http2_client.js URL [CERTIFICATE OF THE AUTHORITY]
const http2 = require('node:http2');
const fs = require('node:fs');

const [url, authority] = process.argv.slice(2);
const session = http2.connect(url, authority ? { ca: fs.readFileSync(authority) } : {});
session.on('error', (error) => { console.error(error); process.exit(1); });

function ask(number) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'POST', ':path': `/${number}`, te: 'trailers', 'content-type': 'application/grpc' });
    const seen = { body: '' };
    stream.on('response', (headers) => { seen.status = headers[':status']; seen.type = headers['content-type']; });
    stream.on('trailers', (trailers) => { seen.grpc = trailers['grpc-status']; });
    stream.on('error', reject);
    stream.on('close', () => { seen.code = stream.rstCode; resolve(seen); });
    stream.setEncoding('utf8');
    stream.on('data', (piece) => { seen.body += piece; });
    stream.end(Buffer.alloc(100000 + number));
  });
}

Promise.all([...Array(20).keys()].map(ask)).then((answers) => {
  console.log(JSON.stringify({ answers, protocol: session.alpnProtocol }));
  session.close();
});
