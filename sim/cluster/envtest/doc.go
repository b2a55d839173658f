// Package envtest runs a real Kubernetes control plane on this machine: etcd and kube-apiserver by controller-runtime's
// envtest, and kube-controller-manager and kube-scheduler beside them where they are asked for.
//
// [Binaries] says where the programs are; `make controlplane` downloads or builds them once a machine. [Start] takes about three
// seconds, and a second more with controllers. Everything listens on free ports of loopback addresses, with certificates
// that were made for this run. All files are in one directory below the system's temporary directory, which
// [ControlPlane.Stop] removes after the processes have ended.
//
// A program that ends without Stop, even by SIGKILL, leaves nothing behind: a watchdog, a shell that notices when its
// standard input is closed, kills the processes and removes the directory. Where the watchdog was killed too, the next Start
// does both: the directories are named layersim-controlplane-*.
//
// When one of the programs ends by itself the control plane is dead: the others are killed, a run on it is broken, and the
// error names the program, how it ended, and what it said last. It names the disk as well, where that is full: etcd ends
// with the first write that finds no room. Where somebody else takes a port that was free, Start tries again with others.
//
// # Limitations
//
//   - It runs on systems with a POSIX shell.
//   - There is no kubelet, no proxy and no network; services get addresses at which nobody answers.
package envtest
