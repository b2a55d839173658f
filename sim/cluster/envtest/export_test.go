package envtest

// WithPorts returns options with a choice of the ports of etcd and of kube-apiserver.
func (o Options) WithPorts(port func(program string) (int, error)) Options {
	o.port = port
	return o
}
