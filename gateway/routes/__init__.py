"""HTTP routes: each module makes one router from the app's service."""
