package build

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"github.com/openshift/imagebuilder/dockerfile/command"
	"github.com/openshift/imagebuilder/dockerfile/parser"

	"github.com/layersim/layersim/controllers/layering"
)

// containerfile is the frame around the user's Containerfile: the stage extract unpacks the rendered MachineConfig, the
// stage configs is the base image with that config applied, on which the user's text builds.
var containerfile = template.Must(template.New("Containerfile").Funcs(template.FuncMap{"quote": strconv.Quote}).Parse(
	`FROM {{.Base}} AS extract
COPY ./machineconfig/machineconfig.json.gz /tmp/machineconfig.json.gz
RUN mkdir -p /etc/machine-config-daemon && \
    base64 -d /tmp/machineconfig.json.gz | gunzip > /etc/machine-config-daemon/currentconfig

FROM {{.Base}} AS configs
COPY --from=extract /etc/machine-config-daemon/currentconfig /etc/machine-config-daemon/currentconfig
RUN jq .spec.config /etc/machine-config-daemon/currentconfig > /tmp/ignition.json && \
    bash -c 'exec -a ignition-apply /usr/lib/dracut/modules.d/30ignition/ignition --ignore-unsupported /tmp/ignition.json' && \
    rm /tmp/ignition.json && \
    ostree container commit
{{- if .Kernel}}
RUN --mount=type=bind,from={{.ExtensionsImage}},source=/,target=/tmp/mco-extensions/os-extensions-content,bind-propagation=rshared,rw,z \
    rpm-ostree override remove kernel kernel-core kernel-modules kernel-modules-core kernel-modules-extra
    {{- range .Kernel}} --install {{.}}{{end}} && \
    ostree container commit
{{- end}}
{{- if .Packages}}
RUN --mount=type=bind,from={{.ExtensionsImage}},source=/,target=/tmp/mco-extensions/os-extensions-content,bind-propagation=rshared,rw,z \
    rpm-ostree install{{range .Packages}} {{.}}{{end}} && \
    ostree container commit
{{- end}}
LABEL machineconfig={{quote .Rendered}}
LABEL machineconfigpool={{quote .Pool}}
LABEL releaseversion={{quote .Release}}
LABEL baseOSContainerImage={{quote .Base}}
{{if .User}}
{{.User}}
{{end}}`))

// frame are the values of the frame.
type frame struct {
	Base, ExtensionsImage, Rendered, Pool, Release, User string

	Packages, Kernel []string
}

// kernelPackages maps the kernel types other than the default to the packages that replace the default kernel.
var kernelPackages = map[string][]string{
	"realtime": {
		"kernel-rt-core", "kernel-rt-modules", "kernel-rt-modules-core", "kernel-rt-modules-extra", "kernel-rt-kvm",
	},
	"64k-pages": {
		"kernel-64k-core", "kernel-64k-modules", "kernel-64k-modules-core", "kernel-64k-modules-extra",
	},
}

// userContainerfile returns the Containerfile that counts: the one for all architectures.
func userContainerfile(config *mcfgv1.MachineOSConfig) string {
	for _, entry := range config.Spec.Containerfile {
		if entry.ContainerfileArch == mcfgv1.NoArch || entry.ContainerfileArch == "" {
			return entry.Content
		}
	}
	return ""
}

// render returns the whole Containerfile of a build. An unknown extension or kernel type is an error. As upstream's,
// it leaves extensions and kernel alone where the rendered MachineConfig names no extensions image.
func render(config *mcfgv1.MachineOSConfig, rendered *mcfgv1.MachineConfig, release string) (string, error) {
	f := frame{
		Base:            rendered.Spec.OSImageURL,
		ExtensionsImage: rendered.Spec.BaseOSExtensionsContainerImage,
		Rendered:        rendered.Name,
		Pool:            config.Spec.MachineConfigPool.Name,
		Release:         release,
		User:            strings.TrimRight(userContainerfile(config), "\n"),
	}
	if f.ExtensionsImage != "" {
		for _, extension := range rendered.Spec.Extensions {
			packages, known := layering.ExtensionPackages(extension)
			if !known {
				return "", fmt.Errorf("machineconfig %s: unknown extension %q", rendered.Name, extension)
			}
			f.Packages = append(f.Packages, packages...)
		}
		kernel := kernelType(rendered)
		packages, known := kernelPackages[kernel]
		if !known && kernel != defaultKernel {
			return "", fmt.Errorf("machineconfig %s: unknown kernel type %q", rendered.Name, kernel)
		}
		f.Kernel = packages
	}
	var out strings.Builder
	if err := containerfile.Execute(&out, f); err != nil {
		return "", fmt.Errorf("render containerfile: %w", err)
	}
	return out.String(), nil
}

// defaultKernel is the kernel type of a MachineConfig that names none.
const defaultKernel = "default"

func kernelType(config *mcfgv1.MachineConfig) string {
	if config.Spec.KernelType == "" {
		return defaultKernel
	}
	return config.Spec.KernelType
}

// RequiresRebuild says whether going from one rendered MachineConfig to another needs a new image: if the OS image, the
// kernel type, the extensions or the kernel arguments differ, in content or in order. All else (files, units, users,
// FIPS) the machine-config-daemon applies itself.
func RequiresRebuild(from, to *mcfgv1.MachineConfig) bool {
	return from.Spec.OSImageURL != to.Spec.OSImageURL ||
		kernelType(from) != kernelType(to) ||
		!slices.Equal(from.Spec.Extensions, to.Spec.Extensions) ||
		!slices.Equal(from.Spec.KernelArguments, to.Spec.KernelArguments)
}

// arguments holds, for each instruction that is known, how many arguments it must have at least.
var arguments = map[string]int{
	command.Add: 2, command.Arg: 1, command.Cmd: 1, command.Copy: 2, command.Entrypoint: 1, command.Env: 1,
	command.Expose: 1, command.From: 1, command.Healthcheck: 1, command.Label: 1, command.Maintainer: 1,
	command.Onbuild: 1, command.Run: 1, command.Shell: 1, command.StopSignal: 1, command.User: 1, command.Volume: 1,
	command.Workdir: 1,
}

// ValidateContainerfile says what is wrong with a user's Containerfile before a build is tried: an instruction that
// doesn't exist, one without its arguments, a malformed FROM or an unterminated here-document. The error names the
// line, counted from 1 in the user's text, and the instruction. An empty text and one of comments only are valid.
func ValidateContainerfile(content string) error {
	result, err := parser.Parse(strings.NewReader(content))
	if err != nil {
		return locate(content, err)
	}
	for _, node := range result.AST.Children {
		if err := validateNode(node); err != nil {
			return fmt.Errorf("line %d: %w", node.StartLine, err)
		}
	}
	return nil
}

// locate finds the line that the parser, which doesn't tell, stumbled over: the last one of the shortest beginning of
// the text that has the same error.
func locate(content string, cause error) error {
	lines := strings.Split(content, "\n")
	first := len(lines)
	for n := len(lines); n > 0; n-- {
		if _, err := parser.Parse(strings.NewReader(strings.Join(lines[:n], "\n"))); err == nil || err.Error() != cause.Error() {
			break
		}
		first = n
	}
	word, _, _ := strings.Cut(strings.TrimSpace(lines[first-1]), " ")
	return fmt.Errorf("line %d: %s: %w", first, strings.ToUpper(word), cause)
}

func validateNode(node *parser.Node) error {
	instruction := strings.ToUpper(node.Value)
	least, known := arguments[strings.ToLower(node.Value)]
	if !known {
		return fmt.Errorf("unknown instruction: %s", instruction)
	}
	var args []string
	for n := node.Next; n != nil; n = n.Next {
		if n.Value != "" || len(n.Children) > 0 {
			args = append(args, n.Value)
		}
	}
	// A here-document stands for the sources of COPY and ADD and for the command of RUN.
	if len(args)+len(node.Heredocs) < least {
		return fmt.Errorf("%s requires at least %d argument(s), but has %d", instruction, least, len(args))
	}
	if strings.EqualFold(node.Value, command.From) {
		if len(args) != 1 && (len(args) != 3 || !strings.EqualFold(args[1], "as")) {
			return fmt.Errorf("FROM requires one argument, or three: FROM <image> [AS <name>], but has: %s",
				strings.Join(args, " "))
		}
	}
	return nil
}
