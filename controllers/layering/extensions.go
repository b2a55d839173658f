package layering

// extensions maps the extensions that a MachineConfig may name to the packages that they stand for.
var extensions = map[string][]string{
	"wasm":                 {"crun-wasm"},
	"ipsec":                {"NetworkManager-libreswan", "libreswan"},
	"usbguard":             {"usbguard"},
	"kerberos":             {"krb5-workstation", "libkadm5"},
	"kernel-devel":         {"kernel-devel", "kernel-headers"},
	"sandboxed-containers": {"kata-containers"},
	"sysstat":              {"sysstat"},
	"two-node-ha":          {"pacemaker", "pcs", "fence-agents-all"},
}

// ExtensionPackages returns the packages that an extension of a MachineConfig stands for; known is false where there is no
// such extension. The slice is shared and must not be changed.
func ExtensionPackages(extension string) (packages []string, known bool) {
	packages, known = extensions[extension]
	return packages, known
}
