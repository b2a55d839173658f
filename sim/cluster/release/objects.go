package release

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
)

// Unstamped is what controllers call themselves that were built without a version.
const Unstamped = "v0.0.0-was-not-built-properly"

// The objects that the cluster and the release share.
const (
	osImageURLConfigMap = "machine-config-osimageurl"
	poolLabelPrefix     = "pools.operator.machineconfiguration.openshift.io/"
)

// Parameters are what a cluster tells a release of itself.
type Parameters struct {
	// BaseImage is the pull spec of the operating system's image, by digest. Required.
	BaseImage string
	// ExtensionsImage is the pull spec of the image with the packages of extensions, which builds mount; by default
	// BaseImage.
	ExtensionsImage string
	// OperatorImage is the image that build pods run in, by digest; by default one that doesn't exist, as nothing pulls it.
	OperatorImage string
	// Version is the payload's; by default Release.Version.
	Version string
	// Controllers is what the programs call themselves, see [ControllersVersion]; by default [Unstamped].
	Controllers string
	// Trust are CA certificates, PEM, that the registry's certificate is signed by.
	Trust []byte
	// PullSecret is the content of .dockerconfigjson of the cluster's global pull secret. Where it is nil, the caller makes
	// the Secrets openshift-config/pull-secret and global-pull-secret-copy, without which no config is rendered and no
	// image built.
	PullSecret []byte
}

func (p Parameters) complete(r *Release) Parameters {
	p.Version = cmp.Or(p.Version, r.Version)
	p.Controllers = cmp.Or(p.Controllers, Unstamped)
	repository, _, _ := strings.Cut(p.BaseImage, "@")
	p.OperatorImage = cmp.Or(p.OperatorImage, repository+"@sha256:"+strings.Repeat("0c", 32))
	p.ExtensionsImage = cmp.Or(p.ExtensionsImage, p.BaseImage)
	return p
}

type fields = map[string]any

// Objects returns what must be in the cluster before the release's controllers start, in the order of creation: namespaces,
// the builder's ServiceAccount, the global pull secret and its copy, ConfigMaps, the cluster's configuration, and the
// ControllerConfig. Pools, nodes, and the Secrets that a MachineOSConfig names are not among them. Some have a status, which
// [Install] writes.
func (r *Release) Objects(p Parameters) []client.Object {
	p = p.complete(r)
	var objects []client.Object
	add := func(apiVersion, kind, namespace, name string, content fields) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: fields{"apiVersion": apiVersion, "kind": kind}}
		o.SetNamespace(namespace)
		o.SetName(name)
		for k, v := range content {
			o.Object[k] = v
		}
		objects = append(objects, o)
		return o
	}
	for _, name := range []string{
		layering.Namespace, "openshift-config", "openshift-config-managed", "openshift-machine-api", "openshift-image-registry",
		"openshift-kube-apiserver-operator",
	} {
		add("v1", "Namespace", "", name, nil)
	}
	add("v1", "ServiceAccount", layering.Namespace, layering.BuilderServiceAccount, nil)

	if p.PullSecret != nil {
		credentials := fields{
			"type": "kubernetes.io/dockerconfigjson",
			"data": fields{".dockerconfigjson": base64.StdEncoding.EncodeToString(p.PullSecret)},
		}
		add("v1", "Secret", "openshift-config", "pull-secret", credentials)
		add("v1", "Secret", layering.Namespace, layering.GlobalPullSecretCopy, credentials)
	}

	images := fields{
		"machineConfigOperator": p.OperatorImage, "infraImage": p.OperatorImage, "keepalivedImage": p.OperatorImage,
		"corednsImage": p.OperatorImage, "haproxyImage": p.OperatorImage, "baremetalRuntimeCfgImage": p.OperatorImage,
		"dockerRegistryImage": p.OperatorImage, "releaseVersion": p.Version,
	}
	text, err := json.Marshal(images)
	if err != nil { // strings always marshal
		text = nil
	}
	add("v1", "ConfigMap", layering.Namespace, layering.ImagesConfigMap, fields{"data": fields{"images.json": string(text)}})
	add("v1", "ConfigMap", layering.Namespace, osImageURLConfigMap, fields{"data": fields{
		"baseOSContainerImage": p.BaseImage, "baseOSExtensionsContainerImage": p.ExtensionsImage,
		"osImageURL": "", "releaseVersion": p.Version,
	}})

	const config = "config.openshift.io/v1"
	infrastructure := fields{
		"controlPlaneTopology": "HighlyAvailable", "infrastructureTopology": "HighlyAvailable", "cpuPartitioning": "None",
		"infrastructureName": "layersim", "apiServerURL": "https://api.layersim.example.com:6443",
		"apiServerInternalURI": "https://api-int.layersim.example.com:6443", "etcdDiscoveryDomain": "",
		"platform": "None", "platformStatus": fields{"type": "None"},
	}
	add(config, "Infrastructure", "", "cluster", fields{
		"spec": fields{"platformSpec": fields{"type": "None"}}, "status": infrastructure,
	})
	add(config, "ClusterVersion", "", "version", fields{
		"spec": fields{"clusterID": "6c617965-7273-496d-8000-000000000000"},
		"status": fields{
			"availableUpdates": nil, "observedGeneration": int64(1), "versionHash": "",
			"desired": fields{"image": r.payload(p), "version": p.Version},
			"history": []any{fields{
				"completionTime": "2025-02-12T19:00:00Z", "image": r.payload(p), "startedTime": "2025-02-12T18:00:00Z",
				"state": "Completed", "verified": false, "version": p.Version,
			}},
		},
	})
	add(config, "FeatureGate", "", "cluster", fields{
		"spec": fields{},
		"status": fields{"featureGates": []any{fields{
			"version": p.Version, "enabled": named(r.enabled), "disabled": named(r.disabled),
		}}},
	})
	add(config, "Scheduler", "", "cluster", fields{"spec": fields{"mastersSchedulable": false}})
	add(config, "APIServer", "", "cluster", fields{"spec": fields{}})
	add(config, "Image", "", "cluster", fields{"spec": fields{}})
	add("operator.openshift.io/v1", "MachineConfiguration", "", "cluster", fields{
		"spec": fields{"managementState": "Managed", "logLevel": "Normal", "operatorLogLevel": "Normal"},
	})

	var trust any
	authorities := []byte("none") // must not be empty
	if len(p.Trust) > 0 {
		trust, authorities = base64.StdEncoding.EncodeToString(p.Trust), p.Trust
	}
	roots := base64.StdEncoding.EncodeToString(authorities)
	controllerImages := fields{ // as the templates and the machine-config-operator name them
		"machineConfigOperator": p.OperatorImage, "infraImageKey": p.OperatorImage, "infraImage": p.OperatorImage,
		"keepalivedImage": p.OperatorImage, "corednsImage": p.OperatorImage, "haproxyImage": p.OperatorImage,
		"baremetalRuntimeCfgImage": p.OperatorImage, "kubeRbacProxyImage": p.OperatorImage, "apiServerWatcherKey": p.OperatorImage,
		"dockerRegistryImage": p.OperatorImage,
	}
	cc := add("machineconfiguration.openshift.io/v1", "ControllerConfig", "", layering.ControllerConfigName, fields{
		"spec": fields{
			"additionalTrustBundle": trust, "rootCAData": roots, "kubeAPIServerServingCAData": roots,
			"cloudProviderCAData": nil, "cloudProviderConfig": "", "clusterDNSIP": "172.30.0.10",
			"baseOSContainerImage": p.BaseImage, "baseOSExtensionsContainerImage": p.ExtensionsImage, "osImageURL": p.BaseImage,
			"releaseImage": r.payload(p), "images": controllerImages, "ipFamilies": "IPv4", "networkType": "OVNKubernetes",
			"network": nil, "proxy": nil,
			"imageRegistryBundleData": []any{}, "imageRegistryBundleUserData": []any{},
			"pullSecret": fields{"namespace": "openshift-config", "name": "pull-secret"},
			"dns": fields{
				"apiVersion": config, "kind": "DNS", "metadata": fields{"name": "cluster"},
				"spec": fields{"baseDomain": "layersim.example.com", "platform": fields{"type": ""}}, "status": fields{},
			},
			"infra": fields{
				"apiVersion": config, "kind": "Infrastructure", "metadata": fields{"name": "cluster"},
				"spec":   fields{"cloudConfig": fields{"name": ""}, "platformSpec": fields{"type": "None"}},
				"status": infrastructure,
			},
		},
	})
	cc.SetAnnotations(map[string]string{
		layering.Prefix + "generated-by-version": p.Controllers, // the controllers ignore one of another version
		layering.ReleaseImageVersion:             p.Version,     // without it the builder refuses all rendered configs
	})
	return objects
}

// payload is the release image. Nothing pulls it.
func (r *Release) payload(p Parameters) string {
	return "quay.io/openshift-release-dev/ocp-release@sha256:" + strings.Repeat("9e", 32)
}

func named(gates []string) []any {
	list := make([]any, len(gates))
	for i, g := range gates {
		list[i] = fields{"name": g}
	}
	return list
}

// Pool returns a MachineConfigPool with the labels and selectors that the controllers expect: master and worker take the
// MachineConfigs of their own role, any other pool takes the worker's too.
func Pool(name string) client.Object {
	selector := fields{"matchLabels": fields{layering.MachineConfigRole: name}}
	if name != layering.MasterPool && name != layering.WorkerPool {
		selector = fields{"matchExpressions": []any{fields{
			"key": layering.MachineConfigRole, "operator": "In", "values": []any{layering.WorkerPool, name},
		}}}
	}
	o := &unstructured.Unstructured{Object: fields{
		"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfigPool",
		"spec": fields{
			"machineConfigSelector": selector, "nodeSelector": fields{"matchLabels": fields{layering.NodeRolePrefix + name: ""}},
		},
	}}
	o.SetName(name)
	o.SetLabels(map[string]string{poolLabelPrefix + name: ""})
	return o
}

// Install creates objects and writes the status of those that have one. Namespaces that exist already are kept.
func Install(ctx context.Context, c client.Client, objects []client.Object) error {
	for _, o := range objects {
		kind := o.GetObjectKind().GroupVersionKind().Kind
		u, ok := o.DeepCopyObject().(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("create %s %s: %T is not unstructured", kind, o.GetName(), o)
		}
		status, hasStatus := u.Object["status"]
		err := c.Create(ctx, u)
		if kind == "Namespace" && apierrors.IsAlreadyExists(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("create %s %s: %w", kind, o.GetName(), err)
		}
		if !hasStatus {
			continue
		}
		u.Object["status"] = status
		if err := c.Status().Update(ctx, u); err != nil {
			return fmt.Errorf("write status of %s %s: %w", kind, o.GetName(), err)
		}
	}
	return nil
}

// Gates returns the feature gates that are on.
func (r *Release) Gates() []string { return slices.Clone(r.enabled) }
