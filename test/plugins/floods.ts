/** Uses its services without end: in one go when it is asked, and then a little all the time. */
import { dynamic } from './make.js';

export const plugin = dynamic('floods', (at) => {
  let timer: NodeJS.Immediate | undefined;
  return {
    start: (services) => {
      const flood = () => {
        for (let set = 0; set < 5000; set++) services.set('02:00:00:00:00:01', { ip: '192.0.2.1', port: 1 });
        for (let event = 0; event < 500; event++) {
          services.log('error', 'x'.repeat(5000));
          services.degrade('everything is wrong');
          services.invalidateAll();
        }
        timer = setImmediate(flood);
      };
      if (at() !== 'late') timer = setImmediate(flood);
      else services.set('02:00:00:00:00:01', { ip: '192.0.2.1', port: 1 });
    },
    stop: () => clearImmediate(timer),
    lookup: () => 'drop',
  };
});
