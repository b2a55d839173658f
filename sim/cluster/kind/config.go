package kind

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config is how the API server of a cluster that layersim made is reached. The error is fs.ErrNotExist if there is none of that
// name.
func Config(name string) (*rest.Config, error) {
	root, err := folder()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(root, name, "kubeconfig")
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, fs.ErrNotExist)
	}
	return clientcmd.BuildConfigFromFlags("", file)
}
