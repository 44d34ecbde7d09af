// A guest and its host talk by vsock, as streams of Node.js. The host serves port 5000: what a program of the guest sends comes back in
// capitals. In a guest with socat: `socat - VSOCK-CONNECT:2:5000`, and to be called back: `socat VSOCK-LISTEN:7000 -`.
// Run: node out/js/examples/vsock.js KERNEL INITRD
import { pipeline, Transform } from 'node:stream';
import { Machine, type Vsock } from '../src/index.js';

export function serveCapitals(vsock: Vsock): void {
  vsock.listen(5000, (stream, guestPort) => {
    const capitals = new Transform({
      transform: (chunk: Buffer, _encoding, done) => done(null, chunk.toString('latin1').toUpperCase()),
    });
    // The guest's end-of-file comes through, and back; a reset ends both directions.
    pipeline(stream, capitals, stream, (error) => {
      console.log(`port ${guestPort} of the guest: ${error?.message ?? 'served'}`);
    });
    void callBack(vsock);
  });
}

async function callBack(vsock: Vsock): Promise<void> {
  try {
    const stream = await vsock.connect(7000);
    stream.on('error', (error) => console.log(`port 7000 of the guest: ${error.message}`));
    stream.end('somebody called\n');
    stream.resume();
  } catch (error) {
    console.log(String(error)); // nobody listens there
  }
}

if (process.argv[1]?.endsWith('vsock.js')) {
  const [path = 'guest/out/bzImage', initrd = 'guest/out/hello.cpio'] = process.argv.slice(2);
  const machine = await Machine.create({
    memory: 128 << 20,
    cpus: 1,
    kernel: { path, initrd },
    serial: { input: 0, output: 1 },
    vsock: {},
  });
  serveCapitals(machine.vsock);
  machine.start();
  console.log(await machine.wait());
  machine.close();
}
