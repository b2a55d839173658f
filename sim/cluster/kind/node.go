package kind

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"

	"github.com/layersim/layersim/sim/history"
)

// The ranges of addresses; kind's defaults, written down because the files below need them too.
const (
	podSubnet     = "10.244.0.0/16"
	nodePodSubnet = "10.244.0.0/24"
	serviceSubnet = "10.96.0.0/16"
)

// The folders and files of the cluster's folder that the node mounts. They are what marks it as ours.
const (
	registries    = "certs.d"
	networkConfig = "10-layersim.conflist"
	isolationUnit = "10-layersim.conf"
	scripts       = "node"
)

// inNode is where the node has the folder scripts.
const inNode = "/kind/layersim"

// conflist is the network of pods on a single node: a pair of interfaces a pod, and ports of the node.
const conflist = `{
  "cniVersion": "0.3.1",
  "name": "layersim",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "mtu": 1500,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni-ipam-state",
        "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "` + nodePodSubnet + `"}]]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// isolateUnit lets containerd start only after isolate, because nothing that could send anything runs before containerd.
const isolateUnit = `[Service]
ExecStartPre=/bin/sh ` + inNode + `/isolate.sh
`

// isolate rejects what would leave the node for anywhere but its Docker network. Addresses of services that kube-proxy
// translates are translated before these chains see them. But what the node itself sends to them, as for the pull of an image
// from a registry in the cluster, seems to leave by eth0 until after the chain output, and later nothing can be rejected: what
// has no pod to go to by then is dropped. What leaves for the Docker network has the node's address, as nobody there knows a
// way to pods.
const isolate = `set -eu
on() { ip -o "-$1" route show dev eth0 proto kernel | while read -r net _; do printf '%s, ' "$net"; done; }
nft -f - <<END
table inet layersim
delete table inet layersim
table inet layersim {
	chain leaving {
		oifname != "eth0" accept
		ip daddr ` + podSubnet + ` ct status dnat accept
		ct state established,related accept
		ip daddr { $(on 4) 224.0.0.0/4 } accept
		ip6 daddr { fe80::/10, ff00::/8 } accept
		counter reject
	}
	chain output { type filter hook output priority filter; policy accept; jump leaving; }
	chain forward { type filter hook forward priority filter; policy accept; jump leaving; }
	chain left { type filter hook postrouting priority filter; policy accept; oifname "eth0" ip daddr ` + podSubnet + ` drop; }
	chain masked { type nat hook postrouting priority srcnat; oifname "eth0" ip saddr ` + podSubnet + ` masquerade; }
}
END
`

// corefile resolves the names of the cluster. No other name exists: who else asked the resolver of the machine would wait
// for answers that the isolation keeps away.
const corefile = `cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
	errors
	health
	ready
	kubernetes cluster.local in-addr.arpa ip6.arpa {
		pods insecure
		ttl 5
	}
	loadbalance
}
.:53 {
	errors
	template ANY ANY {
		rcode NXDOMAIN
	}
}
`

// coreDNS changes kubeadm's Deployment of CoreDNS: one is enough, the kubelet looks each second whether it is ready, it
// stays on the real node, and it has our configuration.
const coreDNS = `spec:
  replicas: 1
  template:
    spec:
      nodeSelector: {` + history.World + `: "true"}
      containers:
      - name: coredns
        readinessProbe: {periodSeconds: 1}
      volumes:
      - name: config-volume
        configMap: null
        hostPath: {path: ` + inNode + `/dns, type: Directory}
`

// writeNode writes the files that the node mounts.
func writeNode(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, registries), 0o755); err != nil {
		return err
	}
	for name, content := range map[string]string{
		networkConfig: conflist, isolationUnit: isolateUnit,
		filepath.Join(scripts, "isolate.sh"):                                  isolate,
		filepath.Join(scripts, "dns", "Corefile"):                             corefile,
		filepath.Join(scripts, "patches", "corednsdeployment+strategic.yaml"): coreDNS,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// config is what kind is told to make.
func config(o Options, dir string, cgroupV1 bool) *v1alpha4.Cluster {
	kubelet := []string{"kind: KubeletConfiguration", "registryPullQPS: 0", "eventRecordQPS: 0"}
	if cgroupV1 {
		kubelet = append(kubelet, "failCgroupV1: false")
	}
	mount := func(name, target string) v1alpha4.Mount {
		return v1alpha4.Mount{HostPath: filepath.Join(dir, name), ContainerPath: target, Readonly: true}
	}
	return &v1alpha4.Cluster{
		TypeMeta: v1alpha4.TypeMeta{Kind: "Cluster", APIVersion: "kind.x-k8s.io/v1alpha4"},
		Name:     o.Name,
		Networking: v1alpha4.Networking{
			IPFamily: v1alpha4.IPv4Family, PodSubnet: podSubnet, ServiceSubnet: serviceSubnet,
			DisableDefaultCNI: true, KubeProxyMode: v1alpha4.NFTablesProxyMode,
		},
		Nodes: []v1alpha4.Node{{
			Role:   v1alpha4.ControlPlaneRole,
			Image:  o.Image,
			Labels: map[string]string{history.World: "true"},
			ExtraMounts: []v1alpha4.Mount{
				mount(registries, "/etc/containerd/certs.d"),
				mount(networkConfig, "/etc/cni/net.d/"+networkConfig),
				mount(isolationUnit, "/etc/systemd/system/containerd.service.d/"+isolationUnit),
				mount(scripts, inNode),
			},
		}},
		KubeadmConfigPatches: []string{
			strings.Join(kubelet, "\n") + "\n",
			"kind: InitConfiguration\npatches:\n  directory: " + inNode + "/patches\n",
			// Nobody restores a cluster like this after a power failure, and there is nobody to elect against: on a busy
			// machine the elections alone were seen to take eight seconds.
			`kind: ClusterConfiguration
etcd:
  local:
    extraArgs:
    - {name: unsafe-no-fsync, value: "true"}
controllerManager:
  extraArgs:
  - {name: leader-elect, value: "false"}
  # The simulated nodes have no kubelet that reports by wall time.
  - {name: node-monitor-grace-period, value: 24h}
  - {name: node-startup-grace-period, value: 24h}
scheduler:
  extraArgs:
  - {name: leader-elect, value: "false"}
`,
		},
		ContainerdConfigPatches: []string{`[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
`},
	}
}

// Registry tells the node how a registry is reached that images name by host, for example a service of the cluster by its
// address: the node can't look up the names of services. Its certificate must be valid for the endpoint's address, and is
// checked with ca (PEM), or with the node's authorities without one. It holds from the next pull on; no restart is needed.
func (c *Cluster) Registry(host, endpoint string, ca []byte) error {
	dir := filepath.Join(c.dir, registries, host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("configure registry %s: %w", host, err)
	}
	hosts := fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", endpoint, endpoint)
	if len(ca) > 0 {
		hosts += fmt.Sprintf("  ca = %q\n", "/etc/containerd/certs.d/"+host+"/ca.crt")
		if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o644); err != nil {
			return fmt.Errorf("configure registry %s: %w", host, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts), 0o644); err != nil {
		return fmt.Errorf("configure registry %s: %w", host, err)
	}
	return nil
}
