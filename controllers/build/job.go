package build

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/layersim/layersim/controllers/layering"
)

// retries is how often a failed build pod is tried again: four pods in all.
const retries = 3

// The containers of a build pod, which run side by side.
const (
	imageBuild  = "image-build"
	waitForDone = "wait-for-done"
)

// buildScript builds and pushes, and hands the digest over through the shared memory volume.
const buildScript = `set -xeuo pipefail
trap '[ $? -eq 0 ] || touch /tmp/done/failed' EXIT
mkdir -p "$HOME/context/machineconfig"
cp /tmp/machineconfig/machineconfig.json.gz "$HOME/context/machineconfig/"
build_options=(--storage-driver vfs --authfile "$BASE_IMAGE_PULL_CREDS" --tag "$TAG" --file /tmp/containerfile/Containerfile)
if [ -n "${ETC_PKI_ENTITLEMENT_MOUNTPOINT:-}" ]; then
  build_options+=(--volume "$ETC_PKI_ENTITLEMENT_MOUNTPOINT:/run/secrets/etc-pki-entitlement:z,rw")
fi
if [ -n "${ETC_YUM_REPOS_D_MOUNTPOINT:-}" ]; then
  build_options+=(--volume "$ETC_YUM_REPOS_D_MOUNTPOINT:/etc/yum.repos.d:z,rw")
fi
if [ -n "${ETC_PKI_RPM_GPG_MOUNTPOINT:-}" ]; then
  build_options+=(--volume "$ETC_PKI_RPM_GPG_MOUNTPOINT:/etc/pki/rpm-gpg:z,rw")
fi
buildah bud "${build_options[@]}" "$HOME/context"
buildah push --storage-driver vfs --authfile "$FINAL_IMAGE_PUSH_CREDS" --digestfile /tmp/done/digestfile.part "$TAG"
mv /tmp/done/digestfile.part /tmp/done/digestfile
`

// waitScript waits for the digest and writes it to the ConfigMap. It fails with its sibling: a pod has failed only when
// none of its containers runs.
const waitScript = `set -xeuo pipefail
until [ -f /tmp/done/digestfile ]; do
  [ ! -f /tmp/done/failed ] || exit 1
  sleep 1
done
exec machine-os-builder create-digest-configmap --configmap-name "$DIGEST_CONFIGMAP_NAME" \
  --digestfile /tmp/done/digestfile --labels "$DIGEST_CONFIGMAP_LABELS"
`

// newJob returns the Job of a build.
func newJob(in *ingredients) (*batchv1.Job, error) {
	if in.build.UID == "" {
		return nil, fmt.Errorf("machineosbuild %s has no uid", in.build.Name)
	}
	meta := in.meta(layering.JobName(in.build.Name))
	meta.OwnerReferences = []metav1.OwnerReference{
		*metav1.NewControllerRef(in.build, mcfgv1.GroupVersion.WithKind("MachineOSBuild")),
	}
	backoffLimit, completions, grace := int32(retries), int32(1), int64(10)
	volumes, mounts := in.volumes()
	env := in.env()
	container := func(name, script string) corev1.Container {
		return corev1.Container{
			Name:                     name,
			Image:                    in.operatorImage,
			Command:                  []string{"/bin/bash", "-c", script},
			Env:                      env,
			VolumeMounts:             mounts,
			ImagePullPolicy:          corev1.PullAlways,
			SecurityContext:          &corev1.SecurityContext{},
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		}
	}
	builder := container(imageBuild, buildScript)
	builder.VolumeMounts = append(slices.Clone(mounts), corev1.VolumeMount{
		Name: "buildah-cache", MountPath: "/home/build/.local/share/containers",
	})
	return &batchv1.Job{
		ObjectMeta: meta,
		Spec: batchv1.JobSpec{
			BackoffLimit: &backoffLimit,
			Completions:  &completions,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy:                 corev1.RestartPolicyNever,
				ServiceAccountName:            layering.BuilderServiceAccount,
				TerminationGracePeriodSeconds: &grace,
				Containers:                    []corev1.Container{builder, container(waitForDone, waitScript)},
				Volumes:                       volumes,
			}},
		},
	}, nil
}

// env returns the environment of both containers.
func (in *ingredients) env() []corev1.EnvVar {
	var httpProxy, httpsProxy, noProxy string
	if proxy := in.controller.Spec.Proxy; proxy != nil {
		httpProxy, httpsProxy, noProxy = proxy.HTTPProxy, proxy.HTTPSProxy, proxy.NoProxy
	}
	labels := in.labels()
	labels[BuildUID] = string(in.build.UID)
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	out := []corev1.EnvVar{
		{Name: "MAX_RETRIES", Value: fmt.Sprint(retries)},
		{Name: "DIGEST_CONFIGMAP_NAME", Value: layering.DigestName(in.build.Name)},
		{Name: "DIGEST_CONFIGMAP_LABELS", Value: strings.Join(pairs, ",")},
		{Name: "HOME", Value: "/home/build"},
		{Name: "TAG", Value: string(in.build.Spec.RenderedImagePushSpec)},
		{Name: "BASE_IMAGE_PULL_CREDS", Value: "/tmp/base-image-pull-creds/config.json"},
		{Name: "FINAL_IMAGE_PUSH_CREDS", Value: "/tmp/final-image-push-creds/config.json"},
		{Name: "BUILDAH_ISOLATION", Value: "chroot"},
		{Name: "HTTP_PROXY", Value: httpProxy},
		{Name: "HTTPS_PROXY", Value: httpsProxy},
		{Name: "NO_PROXY", Value: noProxy},
		{Name: "BASE_OS_IMAGE_PULLSPEC", Value: in.rendered.Spec.OSImageURL},
	}
	for _, optional := range in.optional() {
		out = append(out, corev1.EnvVar{Name: optional.env, Value: optional.path})
	}
	return out
}

// optionalMount is a mount of something that the administrator may provide.
type optionalMount struct {
	name, path, env string
	source          corev1.VolumeSource
}

func (in *ingredients) optional() []optionalMount {
	mode := int32(0o755)
	var out []optionalMount
	if in.entitlement {
		out = append(out, optionalMount{"etc-pki-entitlement", "/etc/pki/entitlement", "ETC_PKI_ENTITLEMENT_MOUNTPOINT",
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: entitlementPrefix + in.pool, DefaultMode: &mode}}})
	}
	if in.yumRepos {
		out = append(out, optionalMount{yumRepos, "/etc/yum.repos.d", "ETC_YUM_REPOS_D_MOUNTPOINT",
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: yumRepos}, DefaultMode: &mode,
			}}})
	}
	if in.rpmKeys {
		out = append(out, optionalMount{rpmKeys, "/etc/pki/rpm-gpg", "ETC_PKI_RPM_GPG_MOUNTPOINT",
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: rpmKeys, DefaultMode: &mode}}})
	}
	return out
}

// volumes returns the pod's volumes, and the mounts that both containers have.
func (in *ingredients) volumes() ([]corev1.Volume, []corev1.VolumeMount) {
	name, optional := in.build.Name, true
	configMap := func(volume, object string) corev1.Volume {
		return corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: object},
		}}}
	}
	secret := func(volume, object string) corev1.Volume {
		return corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: object,
			Items:      []corev1.KeyToPath{{Key: corev1.DockerConfigJsonKey, Path: "config.json"}},
		}}}
	}
	policy, registries := configMap("etc-policy", layering.PolicyName(name)), configMap("etc-registries", layering.RegistriesName(name))
	policy.ConfigMap.Optional, registries.ConfigMap.Optional = &optional, &optional
	empty := func(medium corev1.StorageMedium) corev1.VolumeSource {
		return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}
	}
	volumes := []corev1.Volume{
		configMap("machineconfig", layering.MachineConfigName(name)),
		configMap("containerfile", layering.ContainerfileName(name)),
		policy,
		registries,
		configMap("additional-trust-bundle", layering.TrustBundleName(name)),
		secret("base-image-pull-creds", layering.BasePullSecretName(name)),
		secret("final-image-push-creds", layering.PushSecretName(name)),
		{Name: "done", VolumeSource: empty(corev1.StorageMediumMemory)},
		{Name: "buildah-cache", VolumeSource: empty("")},
	}
	mounts := []corev1.VolumeMount{
		{Name: "machineconfig", MountPath: "/tmp/machineconfig"},
		{Name: "containerfile", MountPath: "/tmp/containerfile"},
		{Name: "etc-policy", MountPath: "/etc/containers/policy.json", SubPath: "policy.json"},
		{Name: "etc-registries", MountPath: "/etc/containers/registries.conf", SubPath: "registries.conf"},
		{Name: "additional-trust-bundle", MountPath: "/etc/pki/ca-trust/source/anchors"},
		{Name: "base-image-pull-creds", MountPath: "/tmp/base-image-pull-creds"},
		{Name: "final-image-push-creds", MountPath: "/tmp/final-image-push-creds"},
		{Name: "done", MountPath: "/tmp/done"},
	}
	for _, o := range in.optional() {
		volumes = append(volumes, corev1.Volume{Name: o.name, VolumeSource: o.source})
		mounts = append(mounts, corev1.VolumeMount{Name: o.name, MountPath: o.path})
	}
	return volumes, mounts
}
