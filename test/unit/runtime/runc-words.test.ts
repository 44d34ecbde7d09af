// Words by which docker tells a missing program from other failures.
import t from 'tap';
import { asRuncSays as translate } from '../../../src/runtime/runc-words.js';

const asRuncSays = (message: string) => translate(message, '/etc');

t.equal(
  asRuncSays('executable file `nothing` not found in $PATH: No such file or directory'),
  'exec: "nothing": executable file not found in $PATH',
);
t.equal(
  asRuncSays('executable file `/no/such` not found in $PATH: No such file or directory'),
  'exec: "/no/such": stat /no/such: no such file or directory',
);
t.equal(
  asRuncSays('open executable `/none`: No such file or directory'),
  'open executable `/none`: no such file or directory',
);
t.equal(asRuncSays('exec `/etc/passwd`: Permission denied'), 'exec `/etc/passwd`: permission denied');
t.equal(asRuncSays('something else: Busy'), 'something else: Busy');
t.equal(
  asRuncSays('open executable: Operation not permitted'),
  'exec: "/etc": not a file: permission denied',
);
