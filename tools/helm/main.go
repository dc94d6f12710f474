// Renders a Helm chart as `helm template` does, CRDs first, with the engine of Helm itself and nothing of its
// client: render CHART NAMESPACE [VALUES.yaml]. See ../seidev/build.py.
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

func main() {
	if err := render(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func render(arguments []string) error {
	if len(arguments) < 2 || len(arguments) > 3 {
		return fmt.Errorf("usage: helm-render CHART NAMESPACE [VALUES.yaml]")
	}
	chart, err := loader.Load(arguments[0])
	if err != nil {
		return err
	}
	given := chartutil.Values{}
	if len(arguments) == 3 {
		if given, err = chartutil.ReadValuesFile(arguments[2]); err != nil {
			return err
		}
	}
	release := chartutil.ReleaseOptions{Name: "seiops", Namespace: arguments[1], Revision: 1, IsInstall: true}
	values, err := chartutil.ToRenderValuesWithSchemaValidation(chart, given, release, chartutil.DefaultCapabilities, false)
	if err != nil {
		return err
	}
	rendered, err := engine.Render(chart, values)
	if err != nil {
		return err
	}
	for _, crd := range chart.CRDObjects() {
		fmt.Printf("---\n%s\n", crd.File.Data)
	}
	names := make([]string, 0, len(rendered))
	for name := range rendered {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(rendered[name]) != "" {
			fmt.Printf("---\n# Source: %s\n%s\n", name, rendered[name])
		}
	}
	return nil
}
