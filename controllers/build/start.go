package build

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
)

// What a build mounts besides its own objects, where it exists when the build starts.
const (
	entitlementPrefix = "etc-pki-entitlement-" // + pool; a Secret
	yumRepos          = "etc-yum-repos-d"      // a ConfigMap
	rpmKeys           = "etc-pki-rpm-gpg"      // a Secret
)

// Labels of copies of Secrets.
const (
	canonicalizedSecret = layering.Prefix + "canonicalizedSecret"
	originalSecretName  = layering.Prefix + "originalSecretName"
)

// ingredients are what a build is made from, read once when it starts.
type ingredients struct {
	build         *mcfgv1.MachineOSBuild
	pool          string
	namespace     string
	rendered      *mcfgv1.MachineConfig
	controller    *mcfgv1.ControllerConfig
	operatorImage string
	containerfile string
	base, push    []byte // canonical Secrets
	baseName      string
	pushName      string

	entitlement, yumRepos, rpmKeys bool
}

// baseSecretName names the Secret that the base image is pulled with.
func baseSecretName(spec *mcfgv1.MachineOSConfigSpec) string {
	if spec.BaseImagePullSecret == nil || spec.BaseImagePullSecret.Name == "" {
		return layering.DefaultBasePullSecret
	}
	return spec.BaseImagePullSecret.Name
}

// start starts a build, or takes over an image that serves, or finds the Containerfile invalid. It leaves the build as
// it is, and holds, if an input is missing.
func (p *pass) start(ctx context.Context, build *mcfgv1.MachineOSBuild, rendered *mcfgv1.MachineConfig) error {
	job := &batchv1.Job{}
	key := client.ObjectKey{Namespace: p.options.Namespace, Name: layering.JobName(build.Name)}
	err := p.live.Get(ctx, key, job)
	switch {
	case err == nil && metav1.IsControlledBy(job, build):
		return p.launched(ctx, build, job) // we were stopped right after creating it
	case err == nil && !job.DeletionTimestamp.IsZero():
		return nil // a Job of an earlier build of this name; its end wakes us
	case err == nil:
		return p.removeObject(ctx, job)
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("get job %s: %w", key.Name, err)
	}
	source, _, err := p.sources(ctx, rendered)
	if err != nil {
		return err
	}
	if source != nil {
		if taken, err := p.takeOver(ctx, build, source); err != nil || taken {
			return err
		}
	}
	in, err := p.gather(ctx, build, rendered)
	if err != nil || in == nil {
		return err
	}
	if err := ValidateContainerfile(userContainerfile(p.config)); err != nil {
		return p.fail(ctx, build, nil, "invalid Containerfile: "+err.Error())
	}
	if ready, err := p.createObjects(ctx, in); err != nil || !ready {
		return err
	}
	if err := p.notePush(ctx, build); err != nil {
		return err
	}
	if job, err = newJob(in); err != nil {
		return err
	}
	if err := p.client.Create(ctx, job); err != nil {
		return fmt.Errorf("create job %s: %w", job.Name, err)
	}
	p.event(build, corev1.EventTypeNormal, "BuildStarted", "Build of MachineOSBuild %s started for pool %s", build.Name, p.pool.Name)
	p.event(build, corev1.EventTypeNormal, "JobCreated", "Job %s created", job.Name)
	return p.launched(ctx, build, job)
}

// launched ties the build to its Job, and what the Job needs to the Job.
func (p *pass) launched(ctx context.Context, build *mcfgv1.MachineOSBuild, job *batchv1.Job) error {
	if err := p.patch(ctx, build, func() {
		metav1.SetMetaDataAnnotation(&build.ObjectMeta, layering.JobUID, string(job.UID))
	}); err != nil {
		return err
	}
	for _, object := range buildObjects(build.Name, p.options.Namespace) {
		err := p.live.Get(ctx, client.ObjectKeyFromObject(object), object)
		if apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return fmt.Errorf("get %T %s: %w", object, object.GetName(), err)
		}
		if err := p.handToJob(ctx, object, build, string(job.UID)); err != nil {
			return err
		}
	}
	return p.follow(ctx, build, job)
}

// handToJob makes the Job the owner of an object that the build itself owned until the Job existed, so that it is
// collected whenever we are stopped in between.
func (p *pass) handToJob(ctx context.Context, object client.Object, build *mcfgv1.MachineOSBuild, job string) error {
	owners := object.GetOwnerReferences()
	if len(owners) != 1 || owners[0].UID != build.UID {
		return nil
	}
	return p.patch(ctx, object, func() {
		object.SetOwnerReferences([]metav1.OwnerReference{{
			APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job", Name: layering.JobName(build.Name),
			UID: types.UID(job), Controller: new(bool), BlockOwnerDeletion: new(bool),
		}})
	})
}

// takeOver makes a build Succeeded with the image of another one, if the registry still holds it.
func (p *pass) takeOver(ctx context.Context, build, source *mcfgv1.MachineOSBuild) (bool, error) {
	image := string(source.Status.DigestedImagePushSpec)
	there, err := p.inspect(ctx, image)
	if err != nil {
		p.hold(reasonRegistry, "the registry does not tell whether it holds %s: %v", image, err)
		return false, fmt.Errorf("inspect image of machineosbuild %s: %w", source.Name, err)
	}
	if !there {
		return false, nil
	}
	err = p.patchStatus(ctx, build, func() {
		build.Status.DigestedImagePushSpec = source.Status.DigestedImagePushSpec
		setState(build, mcfgv1.MachineOSBuildSucceeded, p.clock.Now())
	})
	if err != nil {
		return false, err
	}
	p.event(build, corev1.EventTypeNormal, "BuildCompleted", "Image %s of MachineOSBuild %s serves; no build is needed", image, source.Name)
	return true, nil
}

// gather reads what a build is made from. It returns nil, and holds, if something is missing or malformed.
func (p *pass) gather(ctx context.Context, build *mcfgv1.MachineOSBuild, rendered *mcfgv1.MachineConfig) (*ingredients, error) {
	ns := p.options.Namespace
	in := &ingredients{
		build: build, pool: p.pool.Name, namespace: ns, rendered: rendered, controller: &mcfgv1.ControllerConfig{},
		pushName: p.config.Spec.RenderedImagePushSecret.Name, baseName: baseSecretName(&p.config.Spec),
	}
	if err := p.get(ctx, client.ObjectKey{Name: layering.ControllerConfigName}, in.controller); apierrors.IsNotFound(err) {
		p.hold(reasonControllerConfig, "ControllerConfig %q does not exist", layering.ControllerConfigName)
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("get controllerconfig: %w", err)
	}
	images := &corev1.ConfigMap{}
	if err := p.get(ctx, client.ObjectKey{Namespace: ns, Name: layering.ImagesConfigMap}, images); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get configmap %s: %w", layering.ImagesConfigMap, err)
	}
	var file struct {
		MachineConfigOperator string `json:"machineConfigOperator"`
	}
	if err := json.Unmarshal([]byte(images.Data["images.json"]), &file); err != nil || file.MachineConfigOperator == "" {
		p.hold(reasonImagesInvalid, "ConfigMap %s/%s does not exist or its key images.json names no machineConfigOperator image",
			ns, layering.ImagesConfigMap)
		return nil, nil
	}
	in.operatorImage = file.MachineConfigOperator
	for _, secret := range []struct {
		name, field string
		into        *[]byte
	}{
		{in.baseName, "baseImagePullSecret", &in.base},
		{in.pushName, "renderedImagePushSecret", &in.push},
	} {
		object := &corev1.Secret{}
		if err := p.get(ctx, client.ObjectKey{Namespace: ns, Name: secret.name}, object); apierrors.IsNotFound(err) {
			p.hold(reasonSecretNotFound, "%s: Secret %s/%s does not exist", secret.field, ns, secret.name)
			return nil, nil
		} else if err != nil {
			return nil, fmt.Errorf("get secret %s: %w", secret.name, err)
		}
		content, err := canonical(object)
		if err != nil {
			p.hold(reasonSecretInvalid, "%s: %v", secret.field, err)
			return nil, nil
		}
		*secret.into = content
	}
	for _, optional := range []struct {
		object client.Object
		name   string
		into   *bool
	}{
		{&corev1.Secret{}, entitlementPrefix + p.pool.Name, &in.entitlement},
		{&corev1.ConfigMap{}, yumRepos, &in.yumRepos},
		{&corev1.Secret{}, rpmKeys, &in.rpmKeys},
	} {
		err := p.client.Get(ctx, client.ObjectKey{Namespace: ns, Name: optional.name}, optional.object)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("get %T %s: %w", optional.object, optional.name, err)
		}
		*optional.into = err == nil
	}
	text, err := render(p.config, rendered, rendered.Annotations[layering.ReleaseImageVersion])
	if err != nil {
		p.hold(reasonConfigInvalid, "%v", err)
		return nil, nil
	}
	in.containerfile = text
	return in, nil
}

// createObjects creates what the Job mounts. It returns false if a leftover of an earlier build of this name has to go
// first.
func (p *pass) createObjects(ctx context.Context, in *ingredients) (bool, error) {
	objects, err := in.objects()
	if err != nil {
		return false, err
	}
	ready := true
	stale := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: in.namespace, Name: layering.DigestName(in.build.Name)}
	switch err := p.live.Get(ctx, key, stale); {
	case err == nil: // no Job has run yet: it is an earlier build's
		if err := p.removeObject(ctx, stale); err != nil {
			return false, err
		}
	case !apierrors.IsNotFound(err):
		return false, fmt.Errorf("get configmap %s: %w", key.Name, err)
	}
	for _, object := range objects {
		err := p.client.Create(ctx, object)
		if err == nil {
			continue
		}
		if !apierrors.IsAlreadyExists(err) {
			return false, fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
		if err := p.live.Get(ctx, client.ObjectKeyFromObject(object), object); client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("get %T %s: %w", object, object.GetName(), err)
		}
		if owners := object.GetOwnerReferences(); len(owners) == 1 && owners[0].UID == in.build.UID {
			continue
		}
		if err := p.removeObject(ctx, object); err != nil {
			return false, err
		}
		ready = false
	}
	if !ready {
		p.again(firstLook)
	}
	return ready, nil
}

// buildObjects returns empty objects of the names and kinds that a build's Job mounts.
func buildObjects(build, namespace string) []client.Object {
	var out []client.Object
	for _, name := range []string{
		layering.ContainerfileName(build), layering.MachineConfigName(build), layering.TrustBundleName(build),
		layering.PolicyName(build), layering.RegistriesName(build),
	} {
		out = append(out, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	}
	for _, name := range []string{layering.BasePullSecretName(build), layering.PushSecretName(build)} {
		out = append(out, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	}
	return out
}

// objects returns what the Job mounts, in the order of creation.
func (in *ingredients) objects() ([]client.Object, error) {
	config, err := packConfig(in.rendered)
	if err != nil {
		return nil, err
	}
	name := in.build.Name
	configMap := func(name, key, value string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: in.meta(name), Data: map[string]string{key: value}}
	}
	bundle := &corev1.ConfigMap{
		ObjectMeta: in.meta(layering.TrustBundleName(name)),
		BinaryData: map[string][]byte{"openshift-config-user-ca-bundle.crt": in.controller.Spec.AdditionalTrustBundle},
	}
	out := []client.Object{
		configMap(layering.ContainerfileName(name), "Containerfile", in.containerfile),
		configMap(layering.MachineConfigName(name), "machineconfig.json.gz", config),
		bundle,
	}
	for _, file := range []struct{ path, key, name string }{
		{"/etc/containers/policy.json", "policy.json", layering.PolicyName(name)},
		{"/etc/containers/registries.conf", "registries.conf", layering.RegistriesName(name)},
	} {
		content, found, err := ignitionFile(in.rendered.Spec.Config.Raw, file.path)
		if err != nil {
			return nil, fmt.Errorf("machineconfig %s: %w", in.rendered.Name, err)
		}
		if found {
			out = append(out, configMap(file.name, file.key, content))
		}
	}
	for _, secret := range []struct {
		name, original string
		content        []byte
	}{
		{layering.BasePullSecretName(name), in.baseName, in.base},
		{layering.PushSecretName(name), in.pushName, in.push},
	} {
		object := &corev1.Secret{
			ObjectMeta: in.meta(secret.name), Type: corev1.SecretTypeDockerConfigJson,
			Data: map[string][]byte{corev1.DockerConfigJsonKey: secret.content},
		}
		object.Labels[canonicalizedSecret] = ""
		if len(secret.original) <= maxLabel {
			object.Labels[originalSecretName] = secret.original
		}
		out = append(out, object)
	}
	return out, nil
}

// labels are those of everything that belongs to the build.
func (in *ingredients) labels() map[string]string {
	return map[string]string{
		layering.EphemeralBuild:    "",
		layering.OnClusterLayering: "",
		layering.RenderedConfig:    in.rendered.Name,
		layering.TargetPool:        in.pool,
		layering.OSConfig:          in.build.Spec.MachineOSConfig.Name,
		layering.OSBuild:           in.build.Name,
	}
}

// meta returns the metadata of an object of the build, owned by the MachineOSBuild until the Job exists.
func (in *ingredients) meta(name string) metav1.ObjectMeta {
	annotations := map[string]string{
		layering.OSConfig: in.build.Spec.MachineOSConfig.Name,
		layering.OSBuild:  in.build.Name,
	}
	for key, used := range map[string]bool{
		"has-etc-pki-entitlement": in.entitlement, "has-etc-yum-repos-d": in.yumRepos, "has-etc-pki-rpm-gpg": in.rpmKeys,
	} {
		if used {
			annotations[layering.Prefix+key] = ""
		}
	}
	return metav1.ObjectMeta{
		Namespace: in.namespace, Name: name, Labels: in.labels(), Annotations: annotations,
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: mcfgv1.GroupVersion.String(), Kind: "MachineOSBuild", Name: in.build.Name, UID: in.build.UID,
			Controller: new(bool), BlockOwnerDeletion: new(bool),
		}},
	}
}

// packConfig returns the rendered MachineConfig as the build wants it: JSON, compressed, in base64. What changes
// without the config changing is left out.
func packConfig(rendered *mcfgv1.MachineConfig) (string, error) {
	config := &mcfgv1.MachineConfig{
		TypeMeta: metav1.TypeMeta{APIVersion: mcfgv1.GroupVersion.String(), Kind: "MachineConfig"},
		ObjectMeta: metav1.ObjectMeta{
			Name: rendered.Name, Labels: rendered.Labels, Annotations: rendered.Annotations,
		},
		Spec: rendered.Spec,
	}
	text, err := json.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("pack machineconfig %s: %w", rendered.Name, err)
	}
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	if _, err := writer.Write(text); err != nil {
		return "", fmt.Errorf("pack machineconfig %s: %w", rendered.Name, err)
	}
	if err := writer.Close(); err != nil {
		return "", fmt.Errorf("pack machineconfig %s: %w", rendered.Name, err)
	}
	return base64.StdEncoding.EncodeToString(out.Bytes()), nil
}

// ignitionFile returns a file's content from an Ignition config of version 3.
func ignitionFile(config []byte, path string) (content string, found bool, _ error) {
	if len(config) == 0 {
		return "", false, nil
	}
	var ignition struct {
		Storage struct {
			Files []struct {
				Path     string `json:"path"`
				Contents struct {
					Source      *string `json:"source"`
					Compression string  `json:"compression"`
				} `json:"contents"`
			} `json:"files"`
		} `json:"storage"`
	}
	if err := json.Unmarshal(config, &ignition); err != nil {
		return "", false, fmt.Errorf("parse ignition config: %w", err)
	}
	for _, file := range ignition.Storage.Files {
		if file.Path != path || file.Contents.Source == nil {
			continue
		}
		data, err := dataURL(*file.Contents.Source)
		if err != nil {
			return "", false, fmt.Errorf("file %s: %w", path, err)
		}
		if file.Contents.Compression == "gzip" {
			reader, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				return "", false, fmt.Errorf("file %s: %w", path, err)
			}
			if data, err = io.ReadAll(reader); err != nil {
				return "", false, fmt.Errorf("file %s: %w", path, err)
			}
		}
		return string(data), true, nil
	}
	return "", false, nil
}

// dataURL decodes a URL of scheme data (RFC 2397).
func dataURL(source string) ([]byte, error) {
	rest, ok := strings.CutPrefix(source, "data:")
	header, body, comma := strings.Cut(rest, ",")
	if !ok || !comma {
		return nil, fmt.Errorf("source is not a data URL")
	}
	plain, err := url.PathUnescape(body)
	if err != nil {
		return nil, fmt.Errorf("decode data URL: %w", err)
	}
	if !strings.HasSuffix(header, ";base64") {
		return []byte(plain), nil
	}
	data, err := base64.StdEncoding.DecodeString(plain)
	if err != nil {
		return nil, fmt.Errorf("decode data URL: %w", err)
	}
	return data, nil
}
