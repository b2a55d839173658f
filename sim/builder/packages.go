package builder

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Package is an RPM package, in an image or in a repository.
type Package struct {
	Name string `json:"name"`
	// EVR is [epoch:]version-release.
	EVR  string `json:"evr"`
	Arch string `json:"arch"`

	// Size is the compressed size in bytes, of a package in a repository; default 2 MiB.
	Size int64 `json:"-"`
	// Requires names the packages that are installed with it, of a package in a repository.
	Requires []string `json:"-"`
}

// NVRA is the name that rpm -qa prints: name-version-release.arch.
func (p Package) NVRA() string {
	evr := p.EVR
	if _, rest, ok := strings.Cut(evr, ":"); ok {
		evr = rest
	}
	return p.Name + "-" + evr + "." + p.Arch
}

// NEVRA is the name with the epoch, if it has one.
func (p Package) NEVRA() string { return p.Name + "-" + p.EVR + "." + p.Arch }

// names tells whether a word of a command line means the package.
func (p Package) names(word string) bool {
	nvra := p.NVRA()
	return word == p.Name || word == p.Name+"."+p.Arch || word == nvra || word == strings.TrimSuffix(nvra, "."+p.Arch) ||
		word == p.NEVRA() || word == p.Name+"-"+p.EVR
}

func sortPackages(list []Package) {
	slices.SortFunc(list, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.EVR, b.EVR), cmp.Compare(a.Arch, b.Arch))
	})
}

func marshalPackages(list []Package) ([]byte, error) {
	list = slices.Clone(list)
	sortPackages(list)
	b, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write package list: %w", err)
	}
	return b, nil
}

// Repository is a package repository.
type Repository struct {
	// ID is its name in rpm-ostree's and dnf's output: "rhel-9-baseos".
	ID string
	// URL is where its metadata is, for error messages.
	URL string
	// Disabled ones are used only with --enablerepo.
	Disabled bool
	// Unreachable ones fail each command that uses them.
	Unreachable bool
	Packages    []Package
}

// Repositories are the package repositories that builds can reach. Its methods may be called at the same time.
type Repositories struct {
	mu   sync.Mutex
	list []Repository
}

// NewRepositories returns those repositories, in that order of preference.
func NewRepositories(list ...Repository) *Repositories {
	return &Repositories{list: slices.Clone(list)}
}

// Set adds a repository, or replaces the one with the same ID.
func (r *Repositories) Set(repository Repository) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.list, func(o Repository) bool { return o.ID == repository.ID })
	if i < 0 {
		r.list = append(r.list, repository)
		return
	}
	r.list[i] = repository
}

// SetReachable says whether a repository can be reached; "*" means all of them. It tells whether there is such a
// repository.
func (r *Repositories) SetReachable(id string, reachable bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := false
	for i := range r.list {
		if id == "*" || r.list[i].ID == id {
			r.list[i].Unreachable, found = !reachable, true
		}
	}
	return found
}

// List returns the repositories, in order of preference.
func (r *Repositories) List() []Repository {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// DefaultPackages is the package list of the default base image: a few dozen packages in place of the real five
// hundred.
func DefaultPackages(kernel string) []Package {
	x := func(name, evr string) Package { return Package{Name: name, EVR: evr, Arch: "x86_64"} }
	n := func(name, evr string) Package { return Package{Name: name, EVR: evr, Arch: "noarch"} }
	return []Package{
		x("NetworkManager", "1:1.46.0-19.el9_4"), x("bash", "5.1.8-9.el9"), x("chrony", "4.5-1.el9"),
		x("conmon", "2:2.1.10-1.el9"), x("containers-common", "2:1-92.rhaos4.18.el9"), x("coreutils", "8.32-35.el9"),
		x("cri-o", "1.31.3-2.rhaos4.18.git8a1b3a7.el9"), x("cri-tools", "1.31.0-3.el9"), x("crun", "1.17-1.el9"),
		x("curl", "7.76.1-29.el9_4.1"), x("dbus", "1:1.12.20-8.el9"), x("dnsmasq", "2.85-16.el9_4"),
		x("dracut", "057-54.git20241127.el9_4"), x("e2fsprogs", "1.46.5-5.el9"), x("glibc", "2.34-100.el9_4.4"),
		x("grub2-efi-x64", "1:2.06-82.el9_4.1"), x("ignition", "2.18.0-8.rhaos4.18.el9"), x("iproute", "6.2.0-6.el9_4"),
		x("iptables-nft", "1.8.10-4.el9_4"), x("kernel", kernel), x("kernel-core", kernel), x("kernel-modules", kernel),
		x("kernel-modules-core", kernel), x("kernel-modules-extra", kernel), x("nfs-utils", "1:2.5.4-27.el9_4"),
		x("openshift-kubelet", "4.18.0-202501220734.p0.g8b6f2d4.assembly.stream.el9"), x("openssh-server", "8.7p1-38.el9_4.4"),
		x("openssl", "1:3.0.7-28.el9_4"), x("openvswitch3.4", "3.4.0-18.el9fdp"), x("ostree", "2024.9-1.el9_4"),
		x("podman", "4:5.2.2-1.rhaos4.18.el9"), x("policycoreutils", "3.6-2.1.el9"), x("polkit", "0.117-11.el9"),
		x("rpm", "4.16.1.3-29.el9"), x("rpm-ostree", "2024.9-1.el9_4"), n("selinux-policy", "38.1.35-2.el9_4.2"),
		x("skopeo", "2:1.16.1-1.rhaos4.18.el9"), x("sudo", "1.9.5p2-10.el9_3"), x("systemd", "252-32.el9_4.7"),
		x("toolbox", "0.1.2-1.rhaos4.18.el9"), x("util-linux", "2.37.4-18.el9"), x("vim-minimal", "2:8.2.2637-20.el9_1"),
	}
}

// DefaultRepositories are the repositories with the packages that the product documentation and upstream's tests name.
func DefaultRepositories() *Repositories {
	const kernel = "5.14.0-427.50.1.el9_4"
	x := func(name, evr string, size int64, requires ...string) Package {
		return Package{Name: name, EVR: evr, Arch: "x86_64", Size: size, Requires: requires}
	}
	n := func(name, evr string, size int64, requires ...string) Package {
		return Package{Name: name, EVR: evr, Arch: "noarch", Size: size, Requires: requires}
	}
	return NewRepositories(
		Repository{ID: "rhel-9-baseos", URL: "https://cdn.redhat.com/content/dist/rhel9/9.4/x86_64/baseos/os", Packages: []Package{
			x("lsof", "4.94.0-3.el9", 245_000), x("ltrace", "0.7.91-43.el9", 150_000), x("rsync", "3.2.3-19.el9_4.1", 420_000),
			x("strace", "5.18-2.el9", 1_500_000), x("tmux", "3.2a-5.el9", 490_000), x("tree", "1.8.0-10.el9", 59_000),
			x("wget", "1.21.1-8.el9_4", 790_000), x("telnet", "1:0.17-85.el9", 66_000), x("tcpdump", "14:4.99.0-9.el9", 550_000),
			x("perl-interpreter", "4:5.32.1-481.el9", 73_000), x("dnf", "4.14.0-9.el9", 480_000),
		}},
		Repository{ID: "rhel-9-appstream", URL: "https://cdn.redhat.com/content/dist/rhel9/9.4/x86_64/appstream/os", Packages: []Package{
			x("gpm-libs", "1.20.7-29.el9", 22_000), x("vim-common", "2:8.2.2637-20.el9_1", 7_300_000, "vim-filesystem"),
			x("vim-enhanced", "2:8.2.2637-20.el9_1", 1_800_000, "vim-common", "gpm-libs"),
			n("vim-filesystem", "2:8.2.2637-20.el9_1", 14_000), x("firewalld", "1.3.4-1.el9", 460_000),
			x("libreswan", "4.12-2.el9_4.1", 1_400_000), x("NetworkManager-libreswan", "1.2.14-3.el9", 120_000, "libreswan"),
			x("nmstate", "2.2.38-1.el9_4", 5_200_000), x("zsh", "5.8-9.el9", 3_300_000), x("htop", "3.3.0-1.el9", 190_000),
		}},
		Repository{ID: "rhel-9-nfv", URL: "https://cdn.redhat.com/content/dist/rhel9/9.4/x86_64/nfv/os", Packages: []Package{
			x("kernel-rt", kernel, 1_000_000, "kernel-rt-core", "kernel-rt-modules"),
			x("kernel-rt-core", kernel, 19_000_000), x("kernel-rt-modules", kernel, 38_000_000, "kernel-rt-modules-core"),
			x("kernel-rt-modules-core", kernel, 32_000_000), x("kernel-rt-modules-extra", kernel, 3_500_000),
			x("kernel-rt-kvm", kernel, 500_000),
		}},
		Repository{ID: "coreos-extensions", URL: "file:///usr/share/rpm-ostree/extensions", Packages: []Package{
			x("usbguard", "1.0.0-15.el9", 460_000, "libqb", "protobuf"), x("libqb", "2.0.6-4.el9", 95_000),
			x("protobuf", "3.14.0-13.el9", 1_000_000), x("kata-containers", "3.7.0-6.el9", 19_000_000, "qemu-kvm-core"),
			x("qemu-kvm-core", "17:8.2.0-11.el9_4.8", 4_800_000), x("crun-wasm", "1.17-1.el9", 30_000),
			x("krb5-workstation", "1.21.1-2.el9_4", 550_000, "libkadm5"), x("libkadm5", "1.21.1-2.el9_4", 77_000),
			x("sysstat", "12.5.4-7.el9", 480_000), x("kernel-devel", kernel, 22_000_000), x("kernel-headers", kernel, 6_500_000),
			x("pacemaker", "2.1.7-5.2.el9_4", 480_000), x("pcs", "0.11.7-2.el9_4.3", 6_900_000),
			x("fence-agents-all", "4.10.0-62.el9_4.8", 10_000), x("kernel-64k-core", kernel, 19_000_000),
			x("kernel-64k-modules", kernel, 38_000_000), x("kernel-64k-modules-core", kernel, 32_000_000),
			x("kernel-64k-modules-extra", kernel, 3_500_000),
		}},
		Repository{ID: "fedora", URL: "https://mirrors.fedoraproject.org/metalink?repo=fedora-41&arch=x86_64", Packages: []Package{
			x("rng-tools", "6.17-3.fc41", 70_000, "jitterentropy"), x("jitterentropy", "3.6.0-1.fc41", 33_000),
		}},
		Repository{ID: "epel", URL: "https://dl.fedoraproject.org/pub/epel/9/Everything/x86_64", Packages: []Package{
			n("cowsay", "3.7.0-10.el9", 46_000, "perl-interpreter"), n("epel-release", "9-9.el9", 19_000),
			n("figlet", "2.2.5-23.20151018gita565ae1.el9", 130_000), x("jo", "1.9-1.el9", 30_000),
		}},
	)
}
