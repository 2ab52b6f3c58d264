/** `README.md` of a new plugin. */
export const readme = (packageName: string, name: string): string => `\
# ${packageName}

A lookup plugin for overlayd. It answers one question: where does a frame to this MAC address go?

    npm install
    npm test

The plugin is \`src/index.ts\`. Load it into the daemon by the path of this directory, or by the name of the package
where it is installed, and use it by its name:

    overlayadm create-overlay -e vxlan -s ${name} -v 42 -p vxlan/listen_ip=192.0.2.1 vx0

What to know:

- It runs in a thread of its own, one for all devices that use it, without the daemon's environment: what it needs to
  know are its properties.
- Every call has a deadline: 2 s for \`lookup\`, \`arp\`, \`dhcp\` and \`save\`, 10 s for \`start\` and \`stop\`.
- A thread that does not react for 2 s, throws where nobody catches, or takes more than 256 MiB is replaced. Instances
  are started again with their properties, and with what \`save\` gave within the last second. Until then the device is
  degraded and forwards what it knows.
- What it answers is checked: a destination has exactly the parts that the encapsulation needs, \`ip\` and \`port\` for
  vxlan and geneve, \`ip\` alone for nvgre.
- What it prints is in the daemon's log, as is \`services.log\`; both 20 lines a second in the long run.
- \`services.set\` puts targets into the cache unasked, 20,000 a second in the long run.
- The thread has the rights of the daemon. Faults are contained, malice is not.
`;
