"""Quality over size: the chart and the page of a frontier."""
